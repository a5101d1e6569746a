# Input: the API's registration, {} before it exists. Output: the body of a PATCH that adds what is missing.
# Arguments: `$name`; `$spa`, the client ID of the single-page app or ""; `$deleted_spa`, the client ID of a deleted one
# or ""; `$scope_id`; `$roles`, the content of roles.json in an array.
# What operators added is kept. Graph rejects the removal or change of an enabled role or scope.
def union($more): (. // []) + ($more - (. // []));

# Existing roles and scopes are matched by ID. A disabled one is enabled again. Its text is kept, because Graph does not
# allow changes to an enabled one.
def entitlements($wanted):
  (. // []) as $existing
  | ($existing | map(if .id as $id | any($wanted[]; .id == $id) then .isEnabled = true else . end))
    + [$wanted[] | select(.id as $id | all($existing[]; .id != $id))];

def app_roles: $roles[0] | map(
  {id, value, displayName: .value, description, allowedMemberTypes: ["User"], isEnabled: true}
);

def scope: {
  id: $scope_id, value: "access_as_user", type: "User", isEnabled: true,
  adminConsentDisplayName: "Access tenant-tasks as the signed-in user",
  adminConsentDescription: "Allows the app to view and change the tasks that the signed-in user can access.",
  userConsentDisplayName: "Access tenant-tasks on your behalf",
  userConsentDescription: "Allows the app to view and change the tasks that you can access."
};

# Empty before the single-page app exists. Graph rejects a reference to a deleted app.
def clients($spa):
  if $spa == "" then {} else {
    knownClientApplications: ((.knownClientApplications // []) - [$deleted_spa] | union([$spa])),
    preAuthorizedApplications: ((.preAuthorizedApplications // [] | map(select(.appId != $deleted_spa))) as $existing
      | if any($existing[]; .appId == $spa)
        then $existing | map(if .appId == $spa then .delegatedPermissionIds |= union([scope.id]) else . end)
        else $existing + [{appId: $spa, delegatedPermissionIds: [scope.id]}] end)
  } end;

. as $current
| ($current.api // {}) as $api
| {
    displayName: $name,
    signInAudience: "AzureADMultipleOrgs",
    appRoles: ($current.appRoles | entitlements(app_roles)),
    api: (
      {oauth2PermissionScopes: ($api.oauth2PermissionScopes | entitlements([scope]))}
      + (if $current == {} then {requestedAccessTokenVersion: 2} else {} end)
      + ($api | clients($spa))
      | with_entries(select(.value != $api[.key]))
    )
  }
| if $current == {} then . else .identifierUris = ($current.identifierUris | union(["api://" + $current.appId])) end
| with_entries(select(.value != $current[.key] and .value != {}))

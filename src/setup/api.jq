# The API's registration: what is missing from `.` ({} if there is none yet), as the body of a PATCH.
# `$name`, `$spa` (the single-page app's client id or ""), `$gone` (one that is no more, or ""), `$ids` (our
# entitlements' ids by value).
# What others added stays: Graph refuses to remove or change a role or scope that is enabled.
def union($more): (. // []) + ($more - (. // []));

# Ours are known by id; what is there is only ever enabled again, because its text may not be changed.
def entitlements($ours):
  (. // []) as $there
  | if any($there[]; . as $it | any($ours[]; .value == $it.value and .id != $it.id))
    then error("a role or scope of this registration has one of our values under another id: remove it first")
    else . end
  | ($there | map(if .id as $id | any($ours[]; .id == $id) then .isEnabled = true else . end))
    + [$ours[] | select(.id as $id | all($there[]; .id != $id))];

def role($value; $description):
  {id: $ids[$value], $value, displayName: $value, $description, allowedMemberTypes: ["User"], isEnabled: true};

def roles: [
  role("Admin"; "Sees and changes every task of the organisation"),
  role("Editor"; "Sees, creates and changes their own tasks"),
  role("Reader"; "Sees their own tasks")
];

def scope: {
  id: $ids.access_as_user, value: "access_as_user", type: "User", isEnabled: true,
  adminConsentDisplayName: "Use tenant-tasks as the signed-in user",
  adminConsentDescription: "Lets the app read and change the tasks that the signed-in user may.",
  userConsentDisplayName: "Use tenant-tasks for you",
  userConsentDescription: "Lets the app read and change the tasks that you may."
};

# Without a single-page app yet, nothing that names it. Graph refuses to name one that is gone.
def clients($spa):
  if $spa == "" then {} else {
    knownClientApplications: ((.knownClientApplications // []) - [$gone] | union([$spa])),
    preAuthorizedApplications: ((.preAuthorizedApplications // [] | map(select(.appId != $gone))) as $there
      | if any($there[]; .appId == $spa)
        then $there | map(if .appId == $spa then .delegatedPermissionIds |= union([scope.id]) else . end)
        else $there + [{appId: $spa, delegatedPermissionIds: [scope.id]}] end)
  } end;

. as $have
| ($have.api // {}) as $api
| {
    displayName: $name,
    signInAudience: "AzureADMultipleOrgs",
    appRoles: ($have.appRoles | entitlements(roles)),
    api: (
      {oauth2PermissionScopes: ($api.oauth2PermissionScopes | entitlements([scope]))}
      + (if $have == {} then {requestedAccessTokenVersion: 2} else {} end)
      + ($api | clients($spa))
      | with_entries(select(.value != $api[.key]))
    )
  }
| if $have == {} then . else .identifierUris = ($have.identifierUris | union(["api://" + $have.appId])) end
| with_entries(select(.value != $have[.key] and .value != {}))

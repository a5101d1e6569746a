# Input: the single-page app's registration, {} before it exists. Output: the body of a PATCH that adds what is missing.
# Arguments: `$name`; `$api`, the client ID of the API; `$scope_id`, the ID of the API's scope; `$stale`, the client IDs
# of APIs to remove.
# What operators added is kept, for example the redirect URIs of a deployment.
def union($more): (. // []) + ($more - (. // []));

def redirect_uris: ["http://localhost:3000", "http://localhost:8000/docs/oauth2-redirect.html"];

# The scope of the API, and User.Read of Microsoft Graph.
def permissions: [
  {resourceAppId: $api, resourceAccess: [{id: $scope_id, type: "Scope"}]},
  {
    resourceAppId: "00000003-0000-0000-c000-000000000000",
    resourceAccess: [{id: "e1fe6dd8-ba31-4d61-89e7-88639da4683d", type: "Scope"}]
  }
];

. as $current
| {
    displayName: $name,
    signInAudience: "AzureADMultipleOrgs",
    spa: {redirectUris: ($current.spa.redirectUris | union(redirect_uris))},
    requiredResourceAccess: (reduce permissions[] as $wanted (
      $current.requiredResourceAccess // [] | map(select(.resourceAppId as $id | all($stale[]; . != $id)));
      if any(.[]; .resourceAppId == $wanted.resourceAppId)
      then map(if .resourceAppId == $wanted.resourceAppId
        then .resourceAccess |= union($wanted.resourceAccess) else . end)
      else . + [$wanted] end))
  }
| with_entries(select(.value != $current[.key]))

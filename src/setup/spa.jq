# The single-page app's registration: what is missing from `.` ({} if there is none yet), as the body of a PATCH.
# `$name`, `$api` (the API's client id), `$ids` (its entitlements' ids by value).
# What others added stays, the redirect URIs of a deployment above all.
def union($more): (. // []) + ($more - (. // []));

def redirect_uris: ["http://localhost:3000", "http://localhost:8000/docs/oauth2-redirect.html"];

# Microsoft Graph's User.Read, and the scope of our API.
def permissions: [
  {resourceAppId: $api, resourceAccess: [{id: $ids.access_as_user, type: "Scope"}]},
  {
    resourceAppId: "00000003-0000-0000-c000-000000000000",
    resourceAccess: [{id: "e1fe6dd8-ba31-4d61-89e7-88639da4683d", type: "Scope"}]
  }
];

. as $have
| {
    displayName: $name,
    signInAudience: "AzureADMultipleOrgs",
    spa: {redirectUris: ($have.spa.redirectUris | union(redirect_uris))},
    requiredResourceAccess: (reduce permissions[] as $wanted ($have.requiredResourceAccess // [];
      if any(.[]; .resourceAppId == $wanted.resourceAppId)
      then map(if .resourceAppId == $wanted.resourceAppId
        then .resourceAccess |= union($wanted.resourceAccess) else . end)
      else . + [$wanted] end))
  }
| with_entries(select(.value != $have[.key]))

"""The expected content of the directory."""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[3]
TENANT = "11111111-2222-3333-4444-555555555555"
DOMAIN = "contosotest.onmicrosoft.com"
SCOPE = "8b3c158c-8dc7-4a43-8503-d3949f65150e"
SCOPE_ACCESS = [{"id": SCOPE, "type": "Scope"}]
ROLES = {role["value"]: role for role in json.loads((ROOT / "src" / "setup" / "roles.json").read_text())}
GRAPH_USER_READ = {
    "resourceAppId": "00000003-0000-0000-c000-000000000000",
    "resourceAccess": [{"id": "e1fe6dd8-ba31-4d61-89e7-88639da4683d", "type": "Scope"}],
}
# The writes of a first run in order. The mock counts them per method.
WRITES = [("PATCH", nth) for nth in (1, 2, 3)] + [("POST", nth) for nth in range(1, 3 + 2 * len(ROLES))]

# Objects that setup.sh did not create, with the same names as its own or similar ones.
SEED = {
    "applications": [
        {"displayName": "tenant-tasks-api"},
        {"displayName": "tenant-tasks-api-2", "uniqueName": "tenant-tasks-setup.tenant-tasks-api-2.api"},
        {"displayName": "tenant-tasks-spa", "signInAudience": "AzureADMultipleOrgs"},
    ],
    "users": [
        {"userPrincipalName": "testuser-admin@contoso.example", "displayName": "Test Admin", "mailNickname": "t"},
        {"userPrincipalName": f"testuser-admin2@{DOMAIN}", "displayName": "Test Admin", "mailNickname": "t2"},
    ],
}


def registrations(state):
    """The registrations of the API and of the single-page app."""
    found = {application["uniqueName"]: application for application in state["applications"]}
    return [found[f"tenant-tasks-setup.tenant-tasks-api.{kind}"] for kind in ("api", "spa")]


def snapshot(state):
    """The content of the directory without the values that Graph generates, such as object IDs and times."""
    fields = ("uniqueName", "displayName", "signInAudience", "identifierUris", "appRoles")
    principals = [
        principal for principal in state["servicePrincipals"] if principal["displayName"] != "Microsoft Graph"
    ]
    return {
        "applications": sorted(
            (
                {name: application[name] for name in fields}
                | {"requiredResourceAccess": by_resource(application["requiredResourceAccess"])}
                | {"api": application["api"], "redirectUris": application["spa"]["redirectUris"]}
                for application in state["applications"]
            ),
            key=lambda application: (application["displayName"], application["uniqueName"] or ""),
        ),
        "servicePrincipals": sorted((principal["displayName"], principal["appId"]) for principal in principals),
        "users": sorted(
            (user["userPrincipalName"], user["displayName"], user["accountEnabled"], user.get("department"))
            for user in state["users"]
        ),
        "appRoleAssignments": sorted(
            (row["_upn"], row["_role"], row["resourceDisplayName"]) for row in state["appRoleAssignments"]
        ),
        "forcedChanges": sum(secret["forceChange"] for secret in state["_secrets"].values()),
    }


def by_resource(access):
    """The order of the resources has no meaning."""
    return sorted(access, key=lambda required: required["resourceAppId"])


def application(name, mark=None, audience="AzureADMyOrg", uris=(), roles=(), access=(), redirects=(), **api):
    empty = {
        "acceptMappedClaims": None,
        "knownClientApplications": [],
        "requestedAccessTokenVersion": None,
        "oauth2PermissionScopes": [],
        "preAuthorizedApplications": [],
    }
    return {
        "uniqueName": mark and f"tenant-tasks-setup.{mark}",
        "displayName": name,
        "signInAudience": audience,
        "identifierUris": list(uris),
        "appRoles": list(roles),
        "requiredResourceAccess": by_resource(access),
        "api": empty | api,
        "redirectUris": list(redirects),
    }


def role(value):
    return ROLES[value] | {
        "displayName": value,
        "allowedMemberTypes": ["User"],
        "isEnabled": True,
        "origin": "Application",
    }


def initial_directory():
    return {
        "applications": [
            application("tenant-tasks-api"),
            application("tenant-tasks-api-2", "tenant-tasks-api-2.api"),
            application("tenant-tasks-spa", audience="AzureADMultipleOrgs"),
        ],
        "servicePrincipals": [],
        "users": sorted(
            [(f"admin@{DOMAIN}", "Admin", True, None)]
            + [(user["userPrincipalName"], user["displayName"], True, None) for user in SEED["users"]]
        ),
        "appRoleAssignments": [],
        "forcedChanges": 0,
    }


def directory_after_setup(api, spa, users=True):
    """The content of the directory after setup.sh. Graph generates the two client IDs."""
    scope = {
        "id": SCOPE,
        "value": "access_as_user",
        "type": "User",
        "isEnabled": True,
        "adminConsentDisplayName": "Access tenant-tasks as the signed-in user",
        "adminConsentDescription": "Allows the app to view and change the tasks that the signed-in user can access.",
        "userConsentDisplayName": "Access tenant-tasks on your behalf",
        "userConsentDescription": "Allows the app to view and change the tasks that you can access.",
    }
    created = [
        application(
            "tenant-tasks-api",
            "tenant-tasks-api.api",
            "AzureADMultipleOrgs",
            [f"api://{api}"],
            [role(value) for value in ROLES],
            requestedAccessTokenVersion=2,
            oauth2PermissionScopes=[scope],
            knownClientApplications=[spa],
            preAuthorizedApplications=[{"appId": spa, "delegatedPermissionIds": [SCOPE]}],
        ),
        application(
            "tenant-tasks-spa",
            "tenant-tasks-api.spa",
            "AzureADMultipleOrgs",
            access=[{"resourceAppId": api, "resourceAccess": SCOPE_ACCESS}, GRAPH_USER_READ],
            redirects=["http://localhost:3000", "http://localhost:8000/docs/oauth2-redirect.html"],
        ),
    ]
    directory = initial_directory()
    directory["applications"] = sorted(
        directory["applications"] + created,
        key=lambda application: (application["displayName"], application["uniqueName"] or ""),
    )
    directory["servicePrincipals"] = sorted([("tenant-tasks-api", api), ("tenant-tasks-spa", spa)])
    if users:
        upns = {name: f"testuser-{name.lower()}@{DOMAIN}" for name in ROLES}
        directory["users"] = sorted(
            directory["users"]
            + [
                (upn, f"Test {name} (tenant-tasks-api)", True, "tenant-tasks-setup.tenant-tasks-api")
                for name, upn in upns.items()
            ]
        )
        directory["appRoleAssignments"] = sorted((upn, name, "tenant-tasks-api") for name, upn in upns.items())
    return directory

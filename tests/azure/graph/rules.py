"""The rules of Graph for applications and users.

Where Microsoft does not document the behavior, the stricter reading applies. These places say "assumption".
"""

import re
import urllib.parse

from .directory import APPLICATION, DOMAINS
from .errors import GraphError, bad_request, duplicate, in_use, invalid, missing

GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ROLE = {"allowedMemberTypes", "description", "displayName", "id", "isEnabled", "origin", "value"}
SCOPE = {
    "adminConsentDescription",
    "adminConsentDisplayName",
    "id",
    "isEnabled",
    "origin",
    "type",
    "userConsentDescription",
    "userConsentDisplayName",
    "value",
}
USER = {"accountEnabled", "displayName", "mailNickname", "userPrincipalName", "passwordProfile", "department"}


def is_guid(value):
    return isinstance(value, str) and bool(GUID.fullmatch(value))


def reject_unknown(body, known):
    for name in sorted(set(body) - set(known)):
        raise bad_request(f"Invalid property '{name}'.", name)


def check_application(directory, new, old, body):
    """Checks an application before it is written. `old` is None for a new one."""
    reject_unknown(body, set(APPLICATION) - {"deletedDateTime"})
    for part in ("api", "spa"):
        reject_unknown(body.get(part, {}), APPLICATION[part])
    if not new["displayName"]:
        raise missing("displayName", "Application")
    if new["signInAudience"] not in ("AzureADMyOrg", "AzureADMultipleOrgs"):
        raise invalid("signInAudience")
    if new["api"]["requestedAccessTokenVersion"] not in (None, 1, 2):
        raise invalid("api.requestedAccessTokenVersion")
    check_identifier_uris(directory, new)
    check_roles(new["appRoles"])
    check_scopes(new["api"]["oauth2PermissionScopes"], new["appRoles"])
    if old:
        check_enabled(old["appRoles"], new["appRoles"])
        check_enabled(old["api"]["oauth2PermissionScopes"], new["api"]["oauth2PermissionScopes"])
    check_redirect_uris(new["spa"]["redirectUris"])
    check_references(new)


def check_identifier_uris(directory, new):
    uris = {uri.lower() for uri in new["identifierUris"]}
    if len(uris) != len(new["identifierUris"]):
        raise duplicate("identifierUris")
    for uri in uris:
        # Other forms exist. The scripts write only this one.
        if uri != f"api://{new['appId']}".lower():
            raise invalid("identifierUris")
    # Assumption: a deleted application keeps its identifier URIs until it is purged.
    for entry in [*directory.all("application"), *directory.deleted.values()]:
        if entry.kind == "application" and entry.data["id"] != new["id"]:
            others = {uri.lower() for uri in entry.data["identifierUris"]}
            if others & uris:
                raise in_use("identifierUris")


def check_roles(roles):
    check_permissions(roles, "appRoles", ROLE, ("displayName", "description"))
    for role in roles:
        if role.get("allowedMemberTypes") != ["User"]:
            raise invalid("appRoles.allowedMemberTypes")
        role["origin"] = "Application"


def check_scopes(scopes, roles):
    name = "api.oauth2PermissionScopes"
    check_permissions(scopes, name, SCOPE, ("adminConsentDisplayName", "adminConsentDescription"))
    for scope in scopes:
        if scope.get("type") not in ("User", "Admin"):
            raise invalid(f"{name}.type")
        # A role and a scope with the same value must also have the same ID.
        for role in roles:
            if (scope["value"] == role["value"]) != (scope["id"] == role["id"]):
                raise duplicate("appRoles")


def check_permissions(permissions, name, fields, required):
    ids, values = set(), set()
    for permission in permissions:
        if set(permission) - fields or not is_guid(permission.get("id")):
            raise invalid(name)
        for field in required:
            if not permission.get(field):
                raise missing(field, name)
        if not re.fullmatch(r"[\x21-\x7e]{1,120}", permission["value"]):
            raise invalid(f"{name}.value")
        if permission["id"].lower() in ids or permission["value"] in values:
            raise duplicate(name)
        ids.add(permission["id"].lower())
        values.add(permission["value"])


def check_enabled(before, after):
    """Rejects the removal or change of an enabled role or scope."""
    # Assumption: an enabled one cannot be changed either.
    ignored = {"isEnabled": None, "origin": None}
    after = {permission["id"]: permission for permission in after}
    for permission in before:
        new = after.get(permission["id"])
        if permission["isEnabled"] and (new is None or (new["isEnabled"] and new | ignored != permission | ignored)):
            code = "CannotDeleteOrUpdateEnabledEntitlement"
            message = "Permission (scope or role) cannot be deleted or updated unless disabled first."
            raise GraphError(400, code, message, detail=code)


def check_redirect_uris(uris):
    for uri in uris:
        parts = urllib.parse.urlsplit(uri)
        local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1")
        if not parts.netloc or set("#* ") & set(uri) or not (parts.scheme == "https" or local):
            raise invalid("redirectUris")
    if len(set(uris)) != len(uris):
        raise duplicate("spa.redirectUris")


def check_references(new):
    resources = [required["resourceAppId"] for required in new["requiredResourceAccess"]]
    if not all(map(is_guid, resources)) or len(set(resources)) != len(resources):
        raise invalid("requiredResourceAccess")
    for required in new["requiredResourceAccess"]:
        for access in required["resourceAccess"]:
            if not is_guid(access["id"]) or access["type"] not in ("Scope", "Role"):
                raise invalid("requiredResourceAccess")
    scopes = {scope["id"] for scope in new["api"]["oauth2PermissionScopes"]}
    for client in new["api"]["preAuthorizedApplications"]:
        if not is_guid(client["appId"]) or not set(client["delegatedPermissionIds"]) <= scopes:
            raise invalid("api.preAuthorizedApplications")
    if not all(map(is_guid, new["api"]["knownClientApplications"])):
        raise invalid("api.knownClientApplications")


def check_user(directory, new, body):
    reject_unknown(body, USER)
    for name in ("displayName", "mailNickname", "userPrincipalName", "passwordProfile"):
        if not body.get(name):
            raise missing(name, "User")
    upn = new["userPrincipalName"]
    local, _, domain = upn.partition("@")
    if domain not in DOMAINS or not re.fullmatch(r"[A-Za-z0-9'._!#^~-]{1,64}", local):
        raise invalid("userPrincipalName", "User")
    if any(entry.data["userPrincipalName"].lower() == upn.lower() for entry in directory.all("user")):
        raise in_use("userPrincipalName")


def check_password(upn, password):
    local = upn.partition("@")[0]
    classes = sum(bool(re.search(pattern, password)) for pattern in (r"[a-z]", r"[A-Z]", r"\d", r"[^A-Za-z0-9]"))
    if not 8 <= len(password) <= 256 or classes < 3 or local.lower() in password.lower():
        message = "The specified password does not comply with password complexity requirements."
        raise bad_request(message, "password", "PasswordComplexity")

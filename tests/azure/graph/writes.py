"""The writes of Graph: applications, service principals, users and assignments of roles."""

import copy
import secrets
import uuid

from .directory import merge, new_application
from .errors import GraphError, bad_request, invalid, missing, not_found, now
from .rules import check_application, check_password, check_user, is_guid, reject_unknown


def create_application(directory, body):
    quota = directory.settings["app_quota"]
    deleted = [entry for entry in directory.deleted.values() if entry.kind == "application"]
    if quota and len(directory.all("application")) + len(deleted) >= quota:
        message = (
            "The directory object quota limit for the Principal has been exceeded. Please ask your administrator to "
            "increase the quota limit or delete objects to reduce the used quota."
        )
        raise GraphError(403, "Directory_QuotaExceeded", message)
    data = new_application(body)
    check_application(directory, data, None, body)
    return directory.add("application", data)


def update_application(directory, entry, body):
    data = copy.deepcopy(entry.data)
    merge(data, body)
    check_application(directory, data, entry.data, body)
    directory.update(entry, data)


def create_principal(directory, body):
    reject_unknown(body, {"appId", "tags"})
    if not body.get("appId"):
        raise missing("appId", "ServicePrincipal")
    application = directory.by_client_id("application", body["appId"])
    if directory.by_client_id("servicePrincipal", body["appId"]):
        message = f"The service principal name {body['appId']} is already in use."
        raise GraphError(409, "Request_MultipleObjectsWithSameKeyValue", message, detail="ConflictingObjects")
    if not application or not directory.is_visible(application):
        message = f"The appId '{body['appId']}' of the service principal does not reference a valid application object."
        raise bad_request(message, "appId", "NoBackingApplicationObject")
    data = {
        "id": str(uuid.uuid4()),
        "deletedDateTime": None,
        "accountEnabled": True,
        "appId": application.data["appId"],
        "displayName": application.data["displayName"],
        "servicePrincipalType": "Application",
        "tags": body.get("tags", []),
        "appRoles": [],
        "oauth2PermissionScopes": [],
    }
    return directory.add("servicePrincipal", data)


def create_user(directory, body):
    data = {key: value for key, value in body.items() if key != "passwordProfile"}
    data |= {"id": str(uuid.uuid4()), "createdDateTime": now(), "userType": "Member"}
    check_user(directory, data, body)
    secret = new_secret(data["userPrincipalName"], body["passwordProfile"])
    entry = directory.add("user", data)
    entry.secret = secret
    return entry


def set_password(entry, body):
    # The scripts change nothing else of a user.
    reject_unknown(body, {"passwordProfile"})
    entry.secret = new_secret(entry.data["userPrincipalName"], body["passwordProfile"])


def new_secret(upn, profile):
    reject_unknown(profile, {"password", "forceChangePasswordNextSignIn"})
    check_password(upn, profile["password"])
    return {"password": profile["password"], "forceChange": profile.get("forceChangePasswordNextSignIn", True)}


def create_assignment(directory, resource, body):
    """Assigns a role of the service principal `resource`."""
    reject_unknown(body, {"principalId", "resourceId", "appRoleId"})
    for name in ("principalId", "resourceId", "appRoleId"):
        if not is_guid(body.get(name)):
            raise invalid(name, "AppRoleAssignment")
    if body["resourceId"] != resource.data["id"]:
        # Assumption: Graph's message for this error is another one.
        raise invalid("resourceId", "AppRoleAssignment")
    principal = directory.entries.get(body["principalId"])
    if not principal or principal.kind != "user" or not directory.is_visible(principal):
        raise bad_request("Not a valid reference update.", "principalId", "InvalidReference")
    roles = directory.read(resource)["appRoles"]
    if not any(role["id"] == body["appRoleId"] and role["isEnabled"] for role in roles):
        raise bad_request("Permission being assigned was not found on application", "appRoleId", "InvalidValue")
    if any(row.items() >= body.items() for row in directory.assignments.values()):
        if directory.settings["duplicate_assignment"] == "entitlement":
            message = "EntitlementGrant entry already exists."
            raise GraphError(400, "Request_MultipleObjectsWithSameKeyValue", message, detail="ObjectConflict")
        raise bad_request("Permission being assigned already exists on the object", "appRoleId", "InvalidUpdate")
    row = {
        **body,
        "id": secrets.token_urlsafe(32),
        "createdDateTime": now(),
        "principalDisplayName": principal.data["displayName"],
        "principalType": "User",
        "resourceDisplayName": resource.data["displayName"],
    }
    directory.assignments[row["id"]] = row
    return row


def purge(directory, identifier):
    if identifier not in directory.deleted:
        raise not_found(identifier)
    del directory.deleted[identifier]

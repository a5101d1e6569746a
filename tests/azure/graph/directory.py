"""The state of the mock: one tenant with its objects, and what its replicas show."""

import copy
import re
import threading
import uuid

from .errors import not_found, now

TENANT = "11111111-2222-3333-4444-555555555555"
INITIAL_DOMAIN = "contosotest.onmicrosoft.com"
DOMAINS = (INITIAL_DOMAIN, "contoso.example")
ADMIN = str(uuid.uuid5(uuid.NAMESPACE_DNS, "admin"))
GRAPH_APP = "00000003-0000-0000-c000-000000000000"
USER_READ = {"id": "e1fe6dd8-ba31-4d61-89e7-88639da4683d", "value": "User.Read", "isEnabled": True}

SETTINGS = {
    # A new object is not visible for its first N reads.
    "lag_reads": 0,
    # The result of successive reads of a new object: 0 is not visible, 1 is visible. It is visible after the last one.
    "lag_pattern": "",
    # After a PATCH, the next N reads return the old version.
    "stale_reads": 0,
    # After a DELETE, the next N reads still return the object.
    "delete_lag_reads": 0,
    "page_size": 100,
    # global_admin; member: writes only applications and service principals; reader: writes nothing.
    "privileges": "global_admin",
    # `expired`: the token endpoint rejects the refresh token.
    "token_error": "",
    # Which of Graph's two messages a second assignment of the same role gets: permission, entitlement.
    "duplicate_assignment": "permission",
    # If not 0, the number of applications, with the deleted ones, that the quota of the directory allows.
    "app_quota": 0,
}

APPLICATION = {
    "deletedDateTime": None,
    "uniqueName": None,
    "displayName": None,
    "signInAudience": "AzureADMyOrg",
    "identifierUris": [],
    "appRoles": [],
    "requiredResourceAccess": [],
    "api": {
        "acceptMappedClaims": None,
        "knownClientApplications": [],
        "requestedAccessTokenVersion": None,
        "oauth2PermissionScopes": [],
        "preAuthorizedApplications": [],
    },
    "spa": {"redirectUris": []},
}
COLLECTIONS = {"applications": "application", "servicePrincipals": "servicePrincipal", "users": "user"}


class Entry:
    """An object of the directory."""

    def __init__(self, kind, data):
        self.kind, self.data = kind, data
        self.old_data, self.stale_reads = None, 0
        self.reads, self.pattern = 0, ""
        self.secret = {}


class Directory:
    def __init__(self, seed):
        self.lock = threading.RLock()
        self.settings = dict(SETTINGS)
        self.entries, self.deleted, self.assignments = {}, {}, {}
        self.disappearing = {}  # deleted objects that replicas still return: the remaining reads and the object
        self.customers = {}  # the applications in other tenants, by tenant and client ID
        self.requests = []
        graph = {"appId": GRAPH_APP, "displayName": "Microsoft Graph", "oauth2PermissionScopes": [USER_READ]}
        self.add("servicePrincipal", {"id": str(uuid.uuid4()), "appRoles": [], **graph}, visible=True)
        admin = {"id": ADMIN, "userPrincipalName": f"admin@{INITIAL_DOMAIN}", "displayName": "Admin"}
        for user in [admin, *seed.get("users", [])]:
            self.add("user", {"id": str(uuid.uuid4()), "accountEnabled": True} | user, visible=True)
        for application in seed.get("applications", []):
            self.add("application", new_application(application), visible=True)

    def add(self, kind, data, visible=False):
        entry = Entry(kind, data)
        if not visible:
            entry.pattern = self.settings["lag_pattern"] or "0" * self.settings["lag_reads"]
        self.entries[data["id"]] = entry
        return entry

    def update(self, entry, data):
        if self.settings["stale_reads"]:
            entry.old_data, entry.stale_reads = entry.data, self.settings["stale_reads"]
        entry.data = data

    def delete(self, entry):
        identifier = entry.data["id"]
        del self.entries[identifier]
        entry.data["deletedDateTime"] = now()
        if self.settings["delete_lag_reads"]:
            self.disappearing[identifier] = [self.settings["delete_lag_reads"], entry]
        self.deleted[identifier] = entry
        self.assignments = {
            key: row
            for key, row in self.assignments.items()
            if identifier not in (row["principalId"], row["resourceId"])
        }
        if entry.kind == "application":
            principal = self.by_client_id("servicePrincipal", entry.data["appId"])
            if principal:
                self.delete(principal)

    def all(self, kind):
        return [entry for entry in self.entries.values() if entry.kind == kind]

    def by_client_id(self, kind, client_id):
        return next((e for e in self.all(kind) if e.data["appId"].lower() == client_id.lower()), None)

    def is_visible(self, entry):
        """Reads the object from a replica."""
        number, entry.reads = entry.reads, entry.reads + 1
        return entry.pattern[number : number + 1] != "0"

    def find(self, kind, identifier):
        """Finds an object by its ID, its UPN or an alternate key such as uniqueName='…'."""
        entry = None
        key = re.match(r"^(appId|uniqueName)='(.*)'$", identifier)
        if key:
            entry = next((e for e in self.all(kind) if e.data[key[1]] == key[2]), None)
        elif "@" in identifier:
            names = ((e.data["userPrincipalName"], e) for e in self.all(kind))
            entry = next((e for name, e in names if name.lower() == identifier.lower()), None)
        else:
            entry = self.entries.get(identifier)
            if entry and entry.kind != kind:
                entry = None
        if entry is None:
            disappearing = self.disappearing.get(identifier)
            if not disappearing or disappearing[0] == 0 or disappearing[1].kind != kind:
                raise not_found(identifier)
            disappearing[0] -= 1
            return disappearing[1]
        if not self.is_visible(entry):
            raise not_found(identifier)
        return entry

    def read(self, entry):
        """The content that a replica returns."""
        data = copy.deepcopy(self.version(entry))
        application = entry.kind == "servicePrincipal" and self.by_client_id("application", data["appId"])
        if application:
            # The service principal of the home tenant shows the roles of its application.
            data["appRoles"] = copy.deepcopy(self.version(application)["appRoles"])
        return data

    def version(self, entry):
        if entry.stale_reads > 0:
            entry.stale_reads -= 1
            return entry.old_data
        return entry.data

    def dump(self):
        """The state as JSON. The scenarios read and change it between two runs."""
        for entry in self.entries.values():
            entry.stale_reads = 0
        state = {name: [self.read(entry) for entry in self.all(kind)] for name, kind in COLLECTIONS.items()}
        roles = {
            (principal["id"], role["id"]): role["value"]
            for principal in state["servicePrincipals"]
            for role in principal["appRoles"]
        }
        names = {user["id"]: user["userPrincipalName"] for user in state["users"]}
        state["appRoleAssignments"] = [
            {**row, "_role": roles.get((row["resourceId"], row["appRoleId"])), "_upn": names.get(row["principalId"])}
            for row in self.assignments.values()
        ]
        state["deletedItems"] = [{"type": entry.kind, **entry.data} for entry in self.deleted.values()]
        state["customers"] = self.customers
        state["_secrets"] = {e.data["id"]: e.secret for e in self.entries.values() if e.secret}
        return state

    def load(self, state):
        """Replaces the content with a dump."""
        self.entries = {}
        for name, kind in COLLECTIONS.items():
            for data in state[name]:
                self.add(kind, data, visible=True).secret = state["_secrets"].get(data["id"], {})
        self.assignments = {
            row["id"]: {key: value for key, value in row.items() if not key.startswith("_")}
            for row in state["appRoleAssignments"]
        }
        self.deleted = {}
        for item in state["deletedItems"]:
            data = {key: value for key, value in item.items() if key != "type"}
            self.deleted[data["id"]] = Entry(item["type"], data)
        self.customers = state["customers"]


def new_application(body):
    data = copy.deepcopy(APPLICATION) | {"id": str(uuid.uuid4()), "appId": str(uuid.uuid4()), "createdDateTime": now()}
    merge(data, body)
    return data


def merge(target, changes):
    """Applies a PATCH: complex properties are merged, collections and other values are replaced."""
    for key, value in copy.deepcopy(changes).items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value

"""The paths of Microsoft Graph that setup.sh and cleanup.sh call."""

import base64
import re
import urllib.parse

from . import GRAPH
from .directory import COLLECTIONS, DOMAINS, INITIAL_DOMAIN, TENANT
from .errors import GraphError, bad_request, forbidden, not_found
from .writes import (
    create_application,
    create_assignment,
    create_principal,
    create_user,
    purge,
    set_password,
    update_application,
)

CREATE = {"servicePrincipal": create_principal, "user": create_user}


def handle(directory, method, path, query, body, headers):
    """Answers a request with a status and a JSON body."""
    unknown = set(query) - {"$select", "$skiptoken"}
    if unknown:
        raise bad_request(f"The query parameter '{sorted(unknown)[0]}' is not supported.")
    if not path.startswith("/v1.0/"):
        raise bad_request("Invalid version.")
    path = path.removeprefix("/v1.0")
    check_privileges(directory, method, path)
    # /applications(appId='x') is the same as /applications/appId='x'.
    alternate = re.sub(r"^/(\w+)\(((?:appId|uniqueName)='[^']*')\)", r"/\1/\2", path)
    segments = [urllib.parse.unquote(segment) for segment in alternate.strip("/").split("/")]
    match method, segments:
        case "GET", ["organization"]:
            domains = [{"name": name, "isInitial": name == INITIAL_DOMAIN} for name in DOMAINS]
            row = {"id": TENANT, "displayName": "Contoso Test", "verifiedDomains": domains}
            return page(directory, [row], path, query)
        case "GET", ["directory", "deletedItems", kind] if kind.startswith("microsoft.graph."):
            kind = kind.removeprefix("microsoft.graph.")
            rows = [entry.data for entry in directory.deleted.values() if entry.kind == kind]
            return page(directory, rows, path, query)
        case "GET", ["directory", "deletedItems", identifier]:
            if identifier not in directory.deleted:
                raise not_found(identifier)
            return 200, select(directory.deleted[identifier].data, query)
        case "DELETE", ["directory", "deletedItems", identifier]:
            purge(directory, identifier)
            return 204, None
        case _, [collection, *rest] if collection in COLLECTIONS:
            return handle_object(directory, method, path, query, body, headers, COLLECTIONS[collection], rest)
    raise unknown_path(method, path)


def handle_object(directory, method, path, query, body, headers, kind, rest):
    match method, kind, rest:
        case "POST", "servicePrincipal" | "user", []:
            entry = CREATE[kind](directory, body)
            return 201, entry.data
        case "PATCH", "application", [key] if key.startswith("uniqueName='"):
            if headers.get("Prefer") != "create-if-missing":
                raise unknown_path(method, path)
            return upsert_application(directory, key.split("'")[1], body)
        case "GET", _, [identifier]:
            return 200, select(directory.read(directory.find(kind, identifier)), query)
        case "PATCH", "application", [identifier]:
            update_application(directory, directory.find(kind, identifier), body)
            return 204, None
        case "PATCH", "user", [identifier]:
            set_password(directory.find(kind, identifier), body)
            return 204, None
        case "DELETE", "application" | "user", [identifier]:
            entry = directory.find(kind, identifier)
            if entry.data["id"] not in directory.entries:
                raise not_found(identifier)
            directory.delete(entry)
            return 204, None
        case "GET", "servicePrincipal", [identifier, "appRoleAssignedTo"]:
            resource = directory.find(kind, identifier).data["id"]
            rows = [row for row in directory.assignments.values() if row["resourceId"] == resource]
            return page(directory, rows, path, query)
        case "POST", "servicePrincipal", [identifier, "appRoleAssignedTo"]:
            return 201, create_assignment(directory, directory.find(kind, identifier), body)
    raise unknown_path(method, path)


def upsert_application(directory, name, body):
    entry = next((e for e in directory.all("application") if e.data["uniqueName"] == name), None)
    if entry:
        update_application(directory, entry, body)
        return 204, None
    entry = create_application(directory, body | {"uniqueName": name})
    return 201, entry.data


def check_privileges(directory, method, path):
    """Assumption: this is a coarse model of the directory roles."""
    privileges = directory.settings["privileges"]
    if method == "GET" or privileges == "global_admin":
        return
    if privileges == "member" and path.startswith("/applications"):
        return
    raise forbidden()


def unknown_path(method, path):
    return GraphError(400, "BadRequest", f"The mock does not implement {method} {path}.")


def page(directory, rows, path, query):
    start = int(base64.urlsafe_b64decode(query["$skiptoken"]).decode()) if "$skiptoken" in query else 0
    end = start + directory.settings["page_size"]
    body = {"value": [select(row, query) for row in rows[start:end]]}
    if end < len(rows):
        token = base64.urlsafe_b64encode(str(end).encode()).decode()
        next_query = urllib.parse.urlencode(query | {"$skiptoken": token}, safe="$,")
        body["@odata.nextLink"] = f"https://{GRAPH}/v1.0{path}?{next_query}"
    return 200, body


def select(row, query):
    if "$select" not in query:
        return row
    return {name: row.get(name) for name in query["$select"].split(",")}

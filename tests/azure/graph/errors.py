"""Errors of Microsoft Graph."""

import datetime


def now():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class GraphError(Exception):
    """An error response of Graph. `detail` is the code in `error.details`, which Graph sets for some errors."""

    def __init__(self, status, code, message, target=None, detail=None, headers=None):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.target, self.detail, self.headers = target, detail, headers or {}

    def body(self, request_id):
        error = {"code": self.code, "message": self.message}
        if self.detail:
            error["details"] = [{"code": self.detail, "message": self.message, "target": self.target}]
        error["innerError"] = {"date": now()[:-1], "request-id": request_id, "client-request-id": request_id}
        return {"error": error}


def bad_request(message, target=None, detail=None):
    return GraphError(400, "Request_BadRequest", message, target, detail)


def invalid(name, resource="Application"):
    message = f"Invalid value specified for property '{name}' of resource '{resource}'."
    return bad_request(message, name, "InvalidValue")


def missing(name, resource):
    message = f"A value is required for property '{name}' of resource '{resource}'."
    return bad_request(message, name, "MissingProperty")


def duplicate(name):
    return bad_request("Request contains a property with duplicate values.", name, "DuplicateValue")


def in_use(name):
    return bad_request(
        f"Another object with the same value for property {name} already exists.", name, "ObjectConflict"
    )


def forbidden():
    return GraphError(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def not_found(identifier):
    message = (
        f"Resource '{identifier}' does not exist or one of its queried reference-property objects are not present."
    )
    return GraphError(404, "Request_ResourceNotFound", message)

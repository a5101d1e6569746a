"""Faults that a scenario injects into requests to Graph."""

import re

from .errors import GraphError

CODES = {
    403: "Authorization_RequestDenied",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class Faults:
    """The faults in the order of the command line, and those that were injected.

    A fault is an object with these fields, all optional:

    - `method` and `path`: the requests that it applies to. `path` is a regular expression.
    - `nth`: it applies to the nth of these requests only. The default is the first.
    - `status`, `message`, `retry_after`: the response.
    - `after`: Graph executes the request before it returns the error. Then `nth` counts successful requests.
    - `drop`: the connection is closed without a response.
    - `html`: the body is an HTML page, as a front end sends it.
    """

    def __init__(self, faults):
        self.faults = [{"path": "", "nth": 1, "status": 503, "after": False, "seen": 0} | fault for fault in faults]
        self.injected = []

    def match(self, method, path, after):
        """The fault before a request, or after a successful one, or None. Counts the request for each fault."""
        matched = None
        for fault in self.faults:
            if fault["after"] == after and fault.get("method", method) == method and re.search(fault["path"], path):
                fault["seen"] += 1
                if fault["seen"] == fault["nth"]:
                    matched = fault
        if matched:
            self.injected.append(matched)
        return matched


def fault_error(fault):
    status = fault["status"]
    headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
    return GraphError(status, CODES.get(status, "Fault"), fault.get("message", "Injected fault."), headers=headers)

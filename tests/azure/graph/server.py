"""The HTTPS proxy of the mock. It answers the requests itself and rejects connections to other hosts."""

import http.server
import json
import ssl
import traceback
import urllib.parse
import uuid

from . import GRAPH, HOSTS, LOGIN, routes, sign_in
from .directory import TENANT
from .errors import GraphError, bad_request
from .faults import fault_error


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, directory, faults, certificates):
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory, self.faults = directory, faults
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificates / "leaf.pem", certificates / "leaf.key")

    def handle_error(self, request, client_address):
        """Does nothing. A killed script leaves broken connections."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are sent in one segment, without the delay of Nagle's algorithm.
    wbufsize = -1

    def do_CONNECT(self):
        host, _, port = self.path.partition(":")
        if host not in HOSTS or port != "443":
            self.send(403, {"error": f"The mock does not implement {self.path}."})
            self.close_connection = True
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.wfile.flush()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self.close_connection = False

    def finish(self):
        super().finish()
        self.connection.close()

    def log_message(self, *arguments):
        """Logs nothing."""

    def any(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        host = self.headers["Host"]
        self.server.directory.requests.append({"host": host, "method": self.command, "path": parts.path})
        with self.server.directory.lock:
            try:
                self.answer(host, parts.path, query, body)
            except Exception as error:  # The script must fail with this text instead of repeating the request.
                traceback.print_exc()
                self.send(400, {"error": {"code": "BugInMock", "message": repr(error)}})

    do_GET = do_POST = do_PATCH = do_DELETE = any

    def answer(self, host, path, query, body):
        directory = self.server.directory
        if host == GRAPH:
            self.answer_graph(path, query, body)
        elif host == LOGIN:
            form = dict(urllib.parse.parse_qsl(body.decode()))
            status, response = sign_in.handle(directory, path, query, form)
            if status == 302:
                self.send(302, headers={"Location": response})
            else:
                self.send(status, response)
        elif self.headers.get("Authorization") != f"Bearer {sign_in.access_token(sign_in.MANAGEMENT_RESOURCE)}":
            self.send(401, {"error": {"code": "AuthenticationFailed", "message": "Authentication failed."}})
        elif path.rstrip("/") == "/tenants":
            self.send(200, {"value": [{"id": f"/tenants/{TENANT}", "tenantId": TENANT, "tenantCategory": "Home"}]})
        else:
            # A tenant without subscriptions.
            self.send(200, {"value": []})

    def answer_graph(self, path, query, body):
        fault = self.server.faults.match(self.command, path, after=False)
        try:
            if self.headers.get("Authorization") != f"Bearer {sign_in.access_token(GRAPH)}":
                raise GraphError(401, "InvalidAuthenticationToken", "Access token validation failure.")
            if fault:
                raise fault_error(fault)
            status, response = routes.handle(
                self.server.directory, self.command, path, query, self.json_body(body), self.headers
            )
            fault = self.server.faults.match(self.command, path, after=True)
            if fault:
                raise fault_error(fault)
            self.send(status, response)
        except GraphError as error:
            if fault and fault.get("drop"):
                self.close_connection = True
            elif fault and fault.get("html"):
                self.send(error.status, html="<html><body>The service is unavailable.</body></html>")
            else:
                self.send(error.status, error.body(str(uuid.uuid4())), error.headers)

    def json_body(self, body):
        if self.command not in ("POST", "PATCH"):
            return None
        if "application/json" not in self.headers.get("Content-Type", ""):
            raise bad_request("Write requests must contain the Content-Type header declaration.")
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not value:
            raise bad_request("Empty Payload. JSON content expected.")
        return value

    def send(self, status, body=None, headers=(), html=None):
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        if html:
            content = html.encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if content:
            self.send_header("Content-Type", "text/html" if html else "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

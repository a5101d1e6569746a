"""Tests the metrics and traces of a running service with PostgreSQL, a Prometheus server and an OTLP collector.

Usage: scrape.py ENTRA_URL BINARY
"""

import base64
import contextlib
import http.server
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.cluster import Cluster  # noqa: E402

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
QUERY_TEXT = "s3cret"
TIMEOUT_SECONDS = 30
# Grafana replaces these variables when it runs a query.
VARIABLES = {"$__rate_interval": "10s", "$job": ".*", "$instance": ".*"}


def main():
    entra, binary = sys.argv[1:]
    token = get(f"{entra}/token/contoso/editor").decode()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    collector = Collector()
    api, metrics, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(3))
    database = free_port()
    settings = {
        "DATABASE_URL": f"postgres://service@127.0.0.1:{database}/service",
        # The first task reaches the limit, and further ones are rejected.
        "MAX_TASKS_PER_TENANT": "1",
        "AZURE_API_CLIENT_ID": claims["aud"].removeprefix("api://"),
        "AZURE_AUTHORITY_HOST": entra,
        "ALLOWED_TENANT_IDS": claims["tid"],
        "PORT": api.rpartition(":")[2],
        "METRICS_ADDR": metrics,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "LOG_FORMAT": "json",
    }
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(database))
        for statement in ["CREATE ROLE service LOGIN", "CREATE DATABASE service OWNER service"]:
            server = f"host=127.0.0.1 port={database} user=postgres"
            cluster.run("psql", "--no-psqlrc", "--dbname", server, "--command", statement)
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="observability-")))
        log = stack.enter_context(open(folder / "log", "w+"))
        service = stack.enter_context(start([str(pathlib.Path(binary).resolve())], folder, settings, log))
        wait_for(lambda: get(f"http://{api}/ready"), service)
        stack.enter_context(start_prometheus(folder, prometheus, metrics))

        check_dashboard(prometheus, lambda: send_requests(api, token))
        page = get(f"http://{metrics}/metrics").decode()
        check_metrics_page(page)
        check_alert_metrics(page)

        service.terminate()
        service.wait(20)
        log.seek(0)
        log_lines = [json.loads(line) for line in log]
    check_traces(collector.bodies, log_lines, token)


@contextlib.contextmanager
def start_prometheus(folder, address, target):
    (folder / "prometheus.yml").write_text(
        "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
        f"rule_files: ['{HERE / 'alerts.yml'}']\n"
        f"scrape_configs: [{{ job_name: tenant-tasks, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
    )
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with start([*command, f"--web.listen-address={address}"], folder) as process:
        wait_for(lambda: query(address, 'up{job="tenant-tasks"} == 1')[0], process)
        yield


def query(prometheus, expression):
    parameters = urllib.parse.urlencode({"query": expression})
    return json.loads(get(f"http://{prometheus}/api/v1/query?{parameters}"))["data"]["result"]


def check_dashboard(prometheus, send):
    """Sends requests until every expression of the dashboard returns a result."""
    expressions = dashboard_expressions()
    missing = set(expressions)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while missing and time.monotonic() < deadline:
        send()
        missing = {expression for expression in missing if not query(prometheus, expression)}
    if missing:
        sys.exit("dashboard expressions without a result:\n  " + "\n  ".join(sorted(missing)))
    print(f"dashboard: all {len(expressions)} expressions return a result")


def dashboard_expressions():
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    for name, value in VARIABLES.items():
        expressions = [expression.replace(name, value) for expression in expressions]
    return expressions


def check_metrics_page(page):
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    if checked.returncode != 0:
        sys.exit(f"promtool check metrics: {checked.stdout}{checked.stderr}")
    print(f"promtool check metrics: {len(page.splitlines())} lines are valid")


def check_alert_metrics(page):
    used = set(re.findall(r"tenant_tasks_\w+", (HERE / "alerts.yml").read_text()))
    exported = set(re.findall(r"^tenant_tasks_\w+", page, re.MULTILINE)) | {
        "tenant_tasks_http_request_duration_seconds_bucket"
    }
    if unknown := used - exported:
        sys.exit(f"alerts.yml uses metrics that the service does not export: {unknown}")
    print(f"alerts: the service exports all {len(used)} metrics that alerts.yml uses")


def check_traces(bodies, log_lines, token):
    traces = b"".join(bodies)
    for part in [bytes.fromhex(TRACE_ID), b"GET /api/tasks", b"store", b"tenant-tasks", b"http.response.status_code"]:
        if part not in traces:
            sys.exit(f"the collector did not receive {part}")
    generated = {line["trace_id"] for line in log_lines if line.get("trace_id") not in (None, TRACE_ID)}
    if not generated:
        sys.exit("the log does not contain a generated trace ID")
    if not all(bytes.fromhex(trace_id) in traces for trace_id in generated):
        sys.exit("the log contains trace IDs that the collector did not receive")
    if token.encode() in traces or QUERY_TEXT.encode() in traces:
        sys.exit("the traces contain a token or a query string")
    print(
        f"traces: {len(traces)} bytes in {len(bodies)} batches,"
        f" the trace ID of the client and {len(generated)} generated ones"
    )


def send_requests(api, token):
    """Sends valid and invalid requests, one of them with a traceparent header."""
    authorization = {"Authorization": f"Bearer {token}"}
    for path, headers, body in [
        (f"/api/tasks?q={QUERY_TEXT}", authorization, None),
        ("/api/tasks", {**authorization, "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}, None),
        ("/api/tasks", {**authorization, "Content-Type": "application/json"}, b'{"title":"A task"}'),
        ("/api/me", {"Authorization": "Bearer x"}, None),
        ("/nowhere", {}, None),
    ]:
        with contextlib.suppress(urllib.error.HTTPError):
            get(f"http://{api}{path}", headers, body)
    time.sleep(0.3)


class Collector(http.server.ThreadingHTTPServer):
    """An OTLP collector that keeps the bodies it receives."""

    def __init__(self):
        bodies = self.bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@contextlib.contextmanager
def start(command, folder, settings=None, log=subprocess.DEVNULL):
    process = subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


def wait_for(condition, process):
    """Retries `condition` until it stops raising. Exits if the process ends or the timeout expires."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return condition()
        except (OSError, LookupError):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{process.args[0]} failed to start")
        time.sleep(0.1)


def get(url, headers=None, body=None):
    """Sends a GET request, or a POST request if there is a body."""
    request = urllib.request.Request(url, data=body, headers=headers or {})
    return urllib.request.urlopen(request, timeout=5).read()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()

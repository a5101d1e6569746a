"""Runs the binary beside a real Prometheus and a collector of traces, and looks at what they get.

    scrape.py ENTRA_URL BINARY
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
TRACE = "0af7651916cd43dd8448eb211c80319c"
PATIENCE = 30
# What Grafana fills in.
VARIABLES = {"$__rate_interval": "10s", "$job": ".*", "$instance": ".*"}


def main():
    entra, binary = sys.argv[1:]
    token = ask(f"{entra}/token/contoso/editor").decode()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    collector = Collector()
    api, metrics, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(3))
    settings = {
        "AZURE_API_CLIENT_ID": claims["aud"].removeprefix("api://"),
        "AZURE_AUTHORITY_HOST": entra,
        "ALLOWED_TENANT_IDS": claims["tid"],
        "PORT": api.rpartition(":")[2],
        "METRICS_ADDR": metrics,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "LOG_FORMAT": "json",
    }
    with contextlib.ExitStack() as running:
        folder = pathlib.Path(running.enter_context(tempfile.TemporaryDirectory(prefix="observability-")))
        log = running.enter_context(open(folder / "log", "w+"))
        service = running.enter_context(process([str(pathlib.Path(binary).resolve())], folder, settings, log))
        wait_for(lambda: ask(f"http://{api}/ready"), service)
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
            f"rule_files: ['{HERE / 'alerts.yml'}']\n"
            f"scrape_configs: [{{ job_name: tenant-tasks, static_configs: [{{ targets: ['{metrics}'] }}] }}]\n"
        )
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        scraper = running.enter_context(process([*command, f"--web.listen-address={prometheus}"], folder))
        query = lambda expression: json.loads(  # noqa: E731
            ask(f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        )["data"]["result"]
        wait_for(lambda: query('up{job="tenant-tasks"} == 1')[0], scraper)

        deadline = time.monotonic() + PATIENCE
        missing = set(expressions())
        while missing and time.monotonic() < deadline:
            traffic(api, token)
            missing = {expression for expression in missing if not query(expression)}
        if missing:
            sys.exit("the dashboard asks for what is not there:\n  " + "\n  ".join(sorted(missing)))
        print(f"dashboard: each of {len(expressions())} expressions finds something")
        page = ask(f"http://{metrics}/metrics")
        checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
        if checked.returncode != 0:
            sys.exit(f"promtool check metrics: {checked.stdout.decode()}{checked.stderr.decode()}")
        print(f"promtool check metrics: {len(page.splitlines())} lines, nothing to complain of")
        check_alerts_know_their_metrics(page.decode())

        service.terminate()
        service.wait(20)
        log.seek(0)
        lines = [json.loads(line) for line in log]
    traces = b"".join(collector.received)
    for part in [bytes.fromhex(TRACE), b"GET /api/tasks", b"store", b"tenant-tasks", b"http.response.status_code"]:
        if part not in traces:
            sys.exit(f"the collector did not get {part}")
    own = {line["trace_id"] for line in lines if line.get("trace_id") not in (None, TRACE)}
    if not own or not all(bytes.fromhex(trace) in traces for trace in own):
        sys.exit("the log names traces that the collector did not get")
    if token.encode() in traces or b"s3cret" in traces:
        sys.exit("a token or a query is in the traces")
    print(f"traces: {len(traces)} bytes in {len(collector.received)} batches, the caller's trace and {len(own)} others")


def expressions():
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    # In memory there are no failures.
    return [expression for expression in found if 'outcome!="ok"' not in expression]


def check_alerts_know_their_metrics(page):
    rules = (HERE / "alerts.yml").read_text()
    named = set(re.findall(r"tenant_tasks_\w+", rules))
    there = set(re.findall(r"^tenant_tasks_\w+", page, re.MULTILINE)) | {
        "tenant_tasks_http_request_duration_seconds_bucket"
    }
    if unknown := named - there:
        sys.exit(f"alerts about what is not there: {unknown}")
    print(f"alerts: all {len(named)} metrics they look at are there")


def traffic(api, token):
    """A little of everything, one request with a trace of its caller's."""
    good = {"Authorization": f"Bearer {token}"}
    for path, headers in [
        ("/api/tasks?q=s3cret", good),
        ("/api/tasks", {**good, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}),
        ("/api/me", {"Authorization": "Bearer x"}),
        ("/nowhere", {}),
    ]:
        with contextlib.suppress(urllib.error.HTTPError):
            ask(f"http://{api}{path}", headers)
    time.sleep(0.3)


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what is sent to it."""

    def __init__(self):
        received = self.received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    received.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@contextlib.contextmanager
def process(command, folder, settings=None, log=subprocess.DEVNULL):
    started = subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
        started.wait(20)


def wait_for(condition, started):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return condition()
        except (OSError, LookupError):
            if started.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{started.args[0]} does not come up")
        time.sleep(0.1)


def ask(url, headers=None):
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=5).read()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()

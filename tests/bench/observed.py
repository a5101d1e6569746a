"""Measures the cost of logging and metrics, and the time series that random requests add.

Three services of the same binary take turns, one second each: one without log and metrics, one with a JSON log and
metrics, and one with a text log and metrics. A Prometheus server scrapes the JSON one every second. Each log is a pipe
to a process that reads it. The services share one core; wrk and everything else use another. The median of the ratios
of all rounds counts.

After that, random requests are sent twice, and the time series are counted before and after. Finally the results of
Prometheus are drawn to `tests/observability/graph.svg`. `standalone.py` shows how to run this part alone.
"""

import contextlib
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

from .machine import Failed, cores, free_port, on_core
from .paths import OBSERVABILITY
from .plan import CONNECTIONS, rotated
from .report import row
from .service import TIMEOUT_SECONDS, RawConnection, Service
from .standalone import part_parser, run_part
from .wrk import bearer, requests_per_second, run_wrk

ROUNDS = 31
SECONDS = 1
RANDOM_REQUESTS = 20_000


def main():
    parser = part_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, choices=range(1, 61), metavar="1..60")
    arguments = parser.parse_args()
    run_part(measure, arguments.ready, arguments.rounds)


def measure(ready, rounds=ROUNDS):
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(LoggingService(ready, {"RUST_LOG": "off"}))
        json_log = stack.enter_context(LoggingService(ready, {"LOG_FORMAT": "json", "METRICS_ADDR": free_address()}))
        text_log = stack.enter_context(LoggingService(ready, {"METRICS_ADDR": free_address()}))
        prometheus = stack.enter_context(Prometheus(json_log.settings["METRICS_ADDR"]))
        services = [silent, json_log, text_log]
        for service in services:
            service.add_tasks("contoso/editor", 10)
        began = time.time()
        rates = measure_rates(ready, services, rounds)
        rows = [
            cost("requests per second, JSON log and metrics ÷ neither", rates[json_log], rates[silent], 0.75),
            cost("requests per second, text log and metrics ÷ neither", rates[text_log], rates[silent], None),
        ]
        rows += measure_random_requests(ready, json_log, prometheus)
        (OBSERVABILITY / "graph.svg").write_text(graph(prometheus, began, time.time()))
    return rows


def free_address():
    return f"127.0.0.1:{free_port()}"


def measure_rates(ready, services, rounds):
    rates = {service: [] for service in services}
    for number in range(rounds):
        for service in rotated(services, number):
            options = ["--threads", "1", "--connections", CONNECTIONS, "--duration", f"{SECONDS}s"]
            url = f"http://127.0.0.1:{service.port}/api/tasks"
            output = run_wrk([*options, *bearer(ready, "contoso/editor"), url], cores().client)
            rates[service].append(requests_per_second(output))
    return rates


def cost(name, rates, rates_without, bound):
    by_round = sorted(one / other for one, other in zip(rates, rates_without, strict=True))
    quarter = len(by_round) // 4
    note = f"{by_round[quarter]:.2f} to {by_round[-1 - quarter]:.2f} in the middle half of {len(by_round)} rounds; "
    note += f"{statistics.median(rates):,.0f} ÷ {statistics.median(rates_without):,.0f}"
    return row(name, statistics.median(by_round), "×", bound, note, better="higher")


def measure_random_requests(ready, service, prometheus):
    before = count_time_series(service)
    send_random_requests(service, ready, seed=1)
    after_first = count_time_series(service)
    send_random_requests(service, ready, seed=2)
    after_second = count_time_series(service)
    time.sleep(2)  # so that Prometheus scrapes the last state
    dropped = prometheus.query("tenant_tasks_log_lines_dropped_total")
    scrapes = prometheus.query('count_over_time(up{job="tenant-tasks"}[10m])')
    up = prometheus.query('avg_over_time(up{job="tenant-tasks"}[10m])')
    counts = [f"{after_first} after {RANDOM_REQUESTS:,} requests", f"{after_second} after {2 * RANDOM_REQUESTS:,}"]
    series_note = f"{before} before, {', '.join(counts)}"
    scrapes_note = f"of {scrapes:.0f} scrapes by Prometheus, one per second; {dropped:.0f} log lines dropped"
    added = after_second - after_first
    return [
        row("time series added by repeating the random requests", added, "", None, series_note),
        row("successful scrapes", up, "×", None, scrapes_note, better="higher"),
    ]


class LoggingService(Service):
    """A service whose log is read through a pipe."""

    def __init__(self, ready, settings):
        super().__init__(ready)
        self.settings |= settings

    def __enter__(self):
        self.reader = subprocess.Popen(
            on_core(cores().client, ["cat"]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.log = self.reader.stdin
        super().__enter__()
        self.pin({cores().server})
        return self

    def __exit__(self, *_):
        super().__exit__()
        self.reader.stdin.close()
        self.reader.wait(15)


class Prometheus:
    """Debian's Prometheus server. It scrapes one service every second and evaluates the alert rules."""

    def __init__(self, target):
        self.target = target
        self.port = free_port()

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        folder = pathlib.Path(self.folder.name)
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
            f"rule_files: ['{OBSERVABILITY / 'alerts.yml'}']\n"
            "scrape_configs:\n"
            f"  - {{ job_name: tenant-tasks, static_configs: [{{ targets: ['{self.target}'] }}] }}\n"
        )
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command.append(f"--web.listen-address=127.0.0.1:{self.port}")
        self.process = subprocess.Popen(
            on_core(cores().client, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            with contextlib.suppress(OSError, LookupError):
                if self.query('up{job="tenant-tasks"}') == 1:
                    return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Failed("Prometheus did not start or cannot scrape the service")
            time.sleep(0.2)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(15)
        self.folder.cleanup()

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        return json.loads(urllib.request.urlopen(url, timeout=10).read())["data"]

    def query(self, expression):
        return float(self.get("query", query=expression)["result"][0]["value"][1])


def count_time_series(service):
    page = urllib.request.urlopen(f"http://{service.settings['METRICS_ADDR']}/metrics", timeout=10).read().decode()
    return sum(not line.startswith("#") for line in page.splitlines())


def send_random_requests(service, ready, seed):
    """Sends requests with random methods, paths, headers, key ids, tenants and users. Each request is different."""
    generator = random.Random(seed)
    header, claims, signature = ready["tokens"]["contoso/editor"].split(".")
    with RawConnection(service.port) as connection:
        for number in range(RANDOM_REQUESTS):
            word = f"{generator.getrandbits(64):016x}"
            method = generator.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", f"M{word}"])
            path = generator.choice(["/health", "/api/me", "/api/tasks", f"/api/tasks/{number}", f"/{word}", "/docs/x"])
            tokens = ["", word, f"{header}.{claims}.{word}", f"{word}.{claims}.{signature}"]
            token = generator.choice(tokens)
            head = [f"{method} {path}?{word} HTTP/1.1", "Host: x", f"User-Agent: {word}", "Content-Length: 0"]
            if token:
                head.append(f"Authorization: Bearer {token}")
            connection.send("\r\n".join([*head, "", ""]).encode(), may_fail=True)


def graph(prometheus, began, ended):
    """Returns an SVG with requests per second by status and the number of time series, as Prometheus recorded them."""
    width, height, left, top, between = 860, 200, 70, 40, 90
    panels = [
        (
            "requests per second, by status",
            "sum by (status) (rate(tenant_tasks_http_request_duration_seconds_count[5s]))",
        ),
        ("time series on the metrics page", "scrape_samples_scraped"),
    ]
    colors = ["#0969da", "#bc4c00", "#8250df", "#1a7f37", "#8c959f", "#cf222e", "#9a6700", "#0550ae"]
    parts, y = [], top
    for title, expression in panels:
        found = prometheus.get("query_range", query=expression, start=began, end=ended, step=1)["result"]
        lines = {series["metric"].get("status", ""): series["values"] for series in found}
        highest = max(float(value) for values in lines.values() for _, value in values) or 1
        parts.append(f'<text class="title" x="{left}" y="{y - 14}">{title}</text>')
        parts.append(f'<path class="axis" d="M{left},{y} V{y + height} H{width - 110}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 5}" text-anchor="end">{highest:,.0f}</text>')
        parts.append(f'<text x="{left - 8}" y="{y + height}" text-anchor="end">0</text>')
        parts.append(f'<text x="{width - 110}" y="{y + height + 20}" text-anchor="end">{ended - began:.0f} s</text>')
        for index, (status, values) in enumerate(sorted(lines.items())):
            points = " ".join(
                f"{left + (float(at) - began) / (ended - began) * (width - 110 - left):.1f},"
                f"{y + height - float(value) / highest * height:.1f}"
                for at, value in values
            )
            color = colors[index % len(colors)]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
            if status:
                parts.append(f'<text x="{width - 96}" y="{y + 12 + 20 * index}" style="fill: {color}">{status}</text>')
        y += height + between
    size = f'viewBox="0 0 {width} {y - 40}" width="{width}" height="{y - 40}"'
    document = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>A benchmark and two series of random requests, as recorded by Prometheus</title>",
        "<style>",
        "svg { background: #ffffff } text { font: 13px sans-serif; fill: #24292f } .title { font-weight: bold }",
        ".axis { fill: none; stroke: #8c959f }",
        "</style>",
        *parts,
        "</svg>",
        "",
    ]
    return "\n".join(document)


if __name__ == "__main__":
    main()

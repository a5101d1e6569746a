#!/usr/bin/env python3
"""What logging and metrics cost, while a real Prometheus scrapes them; and what a flood of strangers adds to them.

    python3 tests/bench/observed.py READY_JSON

READY_JSON is what the `bench` example writes once its stand-in for Entra is up. Three services of the same binary take
turns, one second each: one that logs nothing and keeps no metrics, one with a line for each request as JSON and with
metrics, and one with lines for people. The lines go through a pipe to a process that reads them. Every service has
one processor, wrk and everything else the other. The median of the rounds' ratios counts.

Then strangers send what comes to their minds, and the time series are counted before and after. Of all of it Prometheus
is asked at the end: that is `tests/observability/graph.svg`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import limits

HERE = pathlib.Path(__file__).resolve().parent
OBSERVABILITY = HERE.parent / "observability"
SERVER_CORE, CLIENT_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
ROUNDS = 31
SECONDS = 1
CONNECTIONS = 32
STRANGERS = 20_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ready", type=pathlib.Path, metavar="READY_JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS, choices=range(1, 61), metavar="1..60")
    arguments = parser.parse_args()
    limits.print_table(measure(json.loads(arguments.ready.read_text()), arguments.rounds))


def measure(ready, rounds=ROUNDS):
    with contextlib.ExitStack() as running:
        without = running.enter_context(Observed(ready, {"RUST_LOG": "off"}))
        metrics = {"METRICS_ADDR": f"127.0.0.1:{limits.free_port()}"}
        json_lines = running.enter_context(Observed(ready, {"LOG_FORMAT": "json", **metrics}))
        text_lines = running.enter_context(
            Observed(ready, {"METRICS_ADDR": f"127.0.0.1:{limits.free_port()}"})
        )
        prometheus = running.enter_context(Prometheus(metrics["METRICS_ADDR"]))
        services = [without, json_lines, text_lines]
        for service in services:
            service.add_tasks("contoso/editor", 10)
        began = time.time()
        rates = {service: [] for service in services}
        for number in range(rounds):
            turn = number % len(services)
            for service in services[turn:] + services[:turn]:
                rates[service].append(wrk(service))
        rows = []
        for name, service, bound in [
            ("requests a second, JSON lines and metrics ÷ neither", json_lines, 0.93),
            ("requests a second, lines for people and metrics ÷ neither", text_lines, None),
        ]:
            by_round = sorted(one / other for one, other in zip(rates[service], rates[without], strict=True))
            quarter = len(by_round) // 4
            note = f"{by_round[quarter]:.2f} to {by_round[-1 - quarter]:.2f} in the middle half of {rounds} rounds; "
            note += f"{statistics.median(rates[service]):,.0f} ÷ {statistics.median(rates[without]):,.0f}"
            rows.append(row(name, statistics.median(by_round), bound, note))

        page = time_series(json_lines)
        flood(json_lines, ready, 1)
        once = time_series(json_lines)
        flood(json_lines, ready, 2)
        again = time_series(json_lines)
        time.sleep(2)
        dropped = prometheus.ask("tenant_tasks_log_lines_dropped_total")
        scrapes = prometheus.ask('count_over_time(up{job="tenant-tasks"}[10m])')
        up = prometheus.ask('avg_over_time(up{job="tenant-tasks"}[10m])')
        note = f"{page} before, {once} after {STRANGERS:,} requests of strangers, {again} after twice as many"
        rows.append(row("time series added by a second flood of strangers", again - once, None, note))
        note = f"of {scrapes:.0f} scrapes by Prometheus, one a second"
        rows.append(row("scrapes answered", up, None, f"{note}; {dropped:.0f} log lines dropped"))
        (OBSERVABILITY / "graph.svg").write_text(drawing(prometheus, began, time.time()))
    return rows


def row(name, value, bound, note):
    return {"measure": name, "value": value, "unit": "×", "bound": bound, "better": "higher", "note": note}


class Observed(limits.Service):
    """A service whose log is read through a pipe."""

    def __init__(self, ready, settings):
        super().__init__(ready)
        self.settings |= settings
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.reader = subprocess.Popen(
            ["taskset", "--cpu-list", str(CLIENT_CORE), "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.log = self.reader.stdin
        super().__enter__()
        self.pin({SERVER_CORE})
        return self

    def __exit__(self, *_):
        super().__exit__()
        self.reader.stdin.close()
        self.reader.wait(15)


class Prometheus:
    """Debian's, scraping one service once a second into a folder of its own."""

    def __init__(self, target):
        self.target = target
        self.port = limits.free_port()

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        folder = pathlib.Path(self.folder.name)
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
            f"rule_files: ['{OBSERVABILITY / 'alerts.yml'}']\n"
            "scrape_configs:\n"
            f"  - {{ job_name: tenant-tasks, static_configs: [{{ targets: ['{self.target}'] }}] }}\n"
        )
        command = ["taskset", "--cpu-list", str(CLIENT_CORE), "prometheus", f"--config.file={folder}/prometheus.yml"]
        command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + limits.PATIENCE
        while True:
            try:
                if self.ask('up{job="tenant-tasks"}') == 1:
                    return self
            except (OSError, LookupError):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise limits.Failed("Prometheus does not come up, or cannot scrape")
            time.sleep(0.2)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(15)
        self.folder.cleanup()

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        return json.loads(urllib.request.urlopen(url, timeout=10).read())["data"]

    def ask(self, expression):
        return float(self.get("query", query=expression)["result"][0]["value"][1])


def wrk(service):
    command = ["taskset", "--cpu-list", str(CLIENT_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s"]
    command += ["--header", f"Authorization: Bearer {service.tokens['contoso/editor']}", f"{service.address}/api/tasks"]
    finished = subprocess.run(command, capture_output=True, text=True)
    rate = re.search(r"Requests/sec: +([\d.]+)", finished.stdout)
    if finished.returncode != 0 or not rate or re.search("Non-2xx|Socket errors", finished.stdout):
        raise limits.Failed(f"wrk failed: {finished.stdout}{finished.stderr}")
    return float(rate[1])


def time_series(service):
    page = urllib.request.urlopen(f"http://{service.settings['METRICS_ADDR']}/metrics", timeout=10).read().decode()
    return sum(not line.startswith("#") for line in page.splitlines())


def flood(service, ready, seed):
    """Requests of strangers, each another one: method, path, headers, key id, tenant and user are all made up."""
    chance = random.Random(seed)
    good = ready["tokens"]["contoso/editor"].split(".")
    with contextlib.ExitStack() as running:
        connection = running.enter_context(limits.Connection(service.port))
        for number in range(STRANGERS):
            made_up = f"{chance.getrandbits(64):016x}"
            method = chance.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", f"M{made_up}"])
            path = chance.choice(["/health", "/api/me", "/api/tasks", f"/api/tasks/{number}", f"/{made_up}", "/docs/x"])
            token = chance.choice(["", made_up, f"{good[0]}.{good[1]}.{made_up}", f"{made_up}.{good[1]}.{good[2]}"])
            head = [f"{method} {path}?{made_up} HTTP/1.1", "Host: x", f"User-Agent: {made_up}", "Content-Length: 0"]
            if token:
                head.append(f"Authorization: Bearer {token}")
            connection.ask("\r\n".join([*head, "", ""]).encode(), may_fail=True)


def drawing(prometheus, began, ended):
    """Requests a second by status, and time series, as Prometheus saw them."""
    width, height, left, top, between = 860, 200, 70, 40, 90
    panels = [
        ("requests a second, by status", 'sum by (status) (rate(tenant_tasks_http_request_duration_seconds_count[5s]))'),
        ("time series on the page", "scrape_samples_scraped"),
    ]
    colours = ["#0969da", "#bc4c00", "#8250df", "#1a7f37", "#8c959f", "#cf222e", "#9a6700", "#0550ae"]
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
            colour = colours[index % len(colours)]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            if status:
                parts.append(f'<text x="{width - 96}" y="{y + 12 + 20 * index}" style="fill: {colour}">{status}</text>')
        y += height + between
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y - 40}" width="{width}" height="{y - 40}" role="img">',
        "<title>A benchmark and two floods of strangers, as Prometheus saw them</title>",
        "<style>",
        "svg { background: #ffffff } text { font: 13px sans-serif; fill: #24292f } .title { font-weight: bold }",
        ".axis { fill: none; stroke: #8c959f }",
        "</style>",
        *parts,
        "</svg>",
        "",
    ])


if __name__ == "__main__":
    sys.exit(main())

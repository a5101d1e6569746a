"""Measures the service alone: startup, memory, growth with the number of tasks, and what clients do to each other.

Each measure starts its services from the release binary. Compared sides are measured in alternating slices, so that a
short load on the machine affects both. The median of the slices counts. Except for growth, nothing is pinned to a
core: the service and its clients share the machine. `standalone.py` shows how to run this part alone.
"""

import functools
import json
import re
import statistics
import sys
import time

from .attack import connects, expensive_token
from .disturbance import HALF_OPEN_CONNECTIONS, hold_half_open_connections, in_turns, list_in_a_loop
from .growth import growth
from .machine import Failed, busy_share, raise_open_file_limit
from .paths import LUA, SERVICE
from .report import row, spread
from .service import TIMEOUT_SECONDS, Service
from .standalone import part_parser, run_part
from .wrk import bearer, requests_per_second, run_wrk

STARTS = 15
FILLS = 3  # of a million tasks: memory hardly varies, and each takes several seconds
SLICE_SECONDS = 2
KEYS = 10_000  # as many as a tenant can have in memory


def main():
    parser = part_parser(__doc__)
    parser.add_argument("--only", action="append", choices=list(MEASURES), metavar="NAME", help=", ".join(MEASURES))
    arguments = parser.parse_args()
    run_part(measure, arguments.ready, arguments.only)


def measure(ready, only=None):
    """Returns the rows of all measures or of the named ones."""
    if not SERVICE.exists():
        raise Failed(f"{SERVICE} does not exist: run cargo build --release")
    raise_open_file_limit(HALF_OPEN_CONNECTIONS)
    rows = []
    for name in only or MEASURES:
        started = time.monotonic()
        if (busy := busy_share()) > 0.1:
            print(f"limits: the machine is already {busy:.0%} busy, which distorts the ratios", file=sys.stderr)
        rows += MEASURES[name](ready)
        print(f"limits: {name}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows


def start(ready):
    """Measures the time from just before the process is created until the first response."""
    times = []
    for _ in range(STARTS):
        with Service(ready, wait=False) as service:
            service.wait_for_health()
            times.append((time.perf_counter() - service.started) * 1000)
    name = "process start to first response of /health"
    return [row(name, statistics.median(times), "ms", 50, spread(times, "ms"))]


def idle_memory(ready):
    """Measures resident memory after the signing keys are cached and before the first API request."""
    sizes = []
    for _ in range(STARTS // 3):
        with Service(ready) as service:
            sizes.append(service.resident_bytes() / 2**20)
    return [row("idle resident memory", statistics.median(sizes), "MB", 12, spread(sizes, "MB"))]


def task_memory(ready):
    """Measures how much resident memory a task with a title of 40 characters adds, including indexes."""
    few, many, million = 10, 100_000, 1_000_000
    per_task = {many: [], million: []}
    seconds = []
    for _ in range(FILLS):
        with Service(ready) as service:
            service.add_tasks("contoso/editor", few)
            before = service.resident_bytes()
            present = few
            for count, figures in per_task.items():
                started = time.monotonic()
                service.add_tasks("contoso/editor", few + count - present, first=present)
                seconds.append(time.monotonic() - started)
                present = few + count
                figures.append((service.resident_bytes() - before) / count)
    note = f"{spread(per_task[million], 'B')}; created in {seconds[1]:.0f} s"
    return [
        row("memory per task of 1,000,000", statistics.median(per_task[million]), "B", 250, note),
        row("memory per task of 100,000", statistics.median(per_task[many]), "B", None, spread(per_task[many], "B")),
    ]


def keyed_creation(ready):
    """Measures what an idempotency key costs a creation with tasks in memory: time, and memory of the newest keys."""
    rates = {"X-Unused": [], "Idempotency-Key": []}
    with Service(ready) as service:
        for _ in range(5):
            for header, figures in rates.items():
                options = ["--threads", "1", "--connections", "32", "--duration", f"{SLICE_SECONDS}s"]
                options += ["--script", LUA / "create_with_header.lua", *bearer(ready, "contoso/editor")]
                url = f"http://127.0.0.1:{service.port}/api/tasks"
                figures.append(requests_per_second(run_wrk([*options, url, "--", header])))
    ratios = [key / plain for plain, key in zip(*rates.values(), strict=True)]
    grown = []
    for keyed in [False, True]:
        with Service(ready) as service:
            service.add_tasks("fabrikam/editor", KEYS)
            before = service.resident_bytes()
            service.add_tasks("contoso/editor", KEYS, keyed=keyed)
            grown.append(service.resident_bytes() - before)
    memory = (grown[1] - grown[0]) / KEYS
    return [
        row(
            "POST with an idempotency key ÷ without",
            statistics.median(ratios),
            "×",
            0.85,
            spread(ratios, "×"),
            "higher",
        ),
        row("memory per idempotency key", memory, "B", None, f"{KEYS:,} keys"),
    ]


def half_open(ready):
    """Measures the latency of a user while 2,000 connections never complete a request."""
    with Service(ready) as service:
        service.add_tasks("fabrikam/editor", 10)
        disturb = functools.partial(hold_half_open_connections, service.port, ready["tokens"]["contoso/editor"])
        quiet, disturbed, reports = in_turns(lambda: list_with_wrk(service, "fabrikam/editor"), disturb)
    held = min(report["held"] for report in reports)
    closed = sum(report["closed"] for report in reports)
    name = f"p99 with {HALF_OPEN_CONNECTIONS:,} half-open connections ÷ without"
    note = f"{latency_note(disturbed, quiet)}; {held:,} held, {closed:,} closed by the service and reopened"
    return [p99_row(name, disturbed, quiet, 2, note)]


def noisy_neighbor(ready):
    """Measures the latency of an editor while another tenant's admin repeatedly lists 100,000 tasks."""
    with Service(ready) as service:
        service.add_tasks("fabrikam/editor", 10)
        service.add_tasks("contoso/editor", 100_000)
        disturb = functools.partial(list_in_a_loop, service.port, ready["tokens"]["contoso/admin"])
        quiet, disturbed, reports = in_turns(lambda: list_with_wrk(service, "fabrikam/editor"), disturb)
    times = [report["seconds"] * 1000 / report["lists"] for report in reports]
    megabytes = reports[0]["bytes"] / reports[0]["lists"] / 1e6
    name = "p99 while another tenant lists 100,000 tasks ÷ without"
    note = f"{latency_note(disturbed, quiet)}; a list of {megabytes:.1f} MB took {statistics.median(times):.0f} ms"
    return [p99_row(name, disturbed, quiet, 3, note)]


MEASURES = {
    "start": start,
    "idle_memory": idle_memory,
    "task_memory": task_memory,
    "growth": growth,
    "keyed_creation": keyed_creation,
    "half_open": half_open,
    "noisy_neighbor": noisy_neighbor,
    "expensive_token": expensive_token,
    "connects": connects,
}


def list_with_wrk(service, user):
    """Lists the user's tasks on two connections in a closed loop for one slice.

    wrk corrects for requests that it could not send while it waited (coordinated omission). In its p99, a stall
    therefore counts by its duration and not as one slow request.
    """
    arguments = ["--threads", "1", "--connections", "2", "--duration", f"{SLICE_SECONDS}s", "--timeout", "5s"]
    arguments += ["--script", LUA / "percentiles.lua", "--header", f"Authorization: Bearer {service.tokens[user]}"]
    output = run_wrk(
        [*arguments, f"http://127.0.0.1:{service.port}/api/tasks"], timeout=SLICE_SECONDS + TIMEOUT_SECONDS
    )
    if not (result := re.search(r"^result (\{.*\})$", output, re.MULTILINE)):
        raise Failed(f"wrk printed no result:\n{output}")
    figures = json.loads(result[1])
    if figures["failed"] or not figures["requests"]:
        raise Failed(f"some of the measured requests failed: {figures}")
    return figures


def p99_row(name, disturbed, quiet, bound, note):
    return row(name, median_of(disturbed, "p99") / median_of(quiet, "p99"), "×", bound, note)


def latency_note(disturbed, quiet):
    p99s = [f"{median_of(side, 'p99') / 1000:.2f}" for side in (disturbed, quiet)]
    p50s = [f"{median_of(side, 'p50') / 1000:.2f}" for side in (disturbed, quiet)]
    range_of_slices = spread([figures["p99"] / 1000 for figures in disturbed], "ms")
    return f"{' ÷ '.join(p99s)} ms, {range_of_slices}; p50 {' ÷ '.join(p50s)} ms"


def median_of(slices, figure):
    return statistics.median(figures[figure] for figures in slices)


if __name__ == "__main__":
    main()

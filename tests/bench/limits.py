#!/usr/bin/env python3
"""The service's limits, measured: start, memory, growth with the number of tasks, and what one client does to others.

    python3 tests/bench/limits.py READY_JSON               everything: some four minutes
    python3 tests/bench/limits.py READY_JSON --only NAME   one of the measures in MEASURES; may be repeated

READY_JSON is what the `bench` example writes once its stand-in for Entra is up. Each measure starts services of its
own, from the release binary. What is compared is measured in turns, slice by slice, so that a busy moment of the
machine hits both sides; of the slices the median counts. An answer that is not 200 ends the whole measurement: a
refusal is quick to give, and would pass for speed.

But for growth nothing is pinned to a core: service, client and whoever disturbs them share the machine.
"""

import argparse
import collections
import contextlib
import functools
import http.client
import json
import multiprocessing
import os
import pathlib
import random
import re
import resource
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINARY = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "tenant-tasks"

STARTS = 15
SEEDINGS = 3  # of a million tasks: memory hardly varies, and each takes its time
SIZES = [10**exponent for exponent in range(2, 7)]
BURSTS = 200
BURST = 20  # requests; a fifth of the smallest size, so that sizes stay what they are called
SLICES = 8
SLICE_SECONDS = 2
SETTLE_SECONDS = 0.5  # for what a disturbance leaves behind, such as 2,000 closed connections
STRANGERS = 2000
PATIENCE = 30  # seconds without an answer before a measurement is given up


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ready", type=pathlib.Path, metavar="READY_JSON")
    parser.add_argument("--only", action="append", choices=list(MEASURES), metavar="NAME")
    arguments = parser.parse_args()
    rows = measure(json.loads(arguments.ready.read_text()), arguments.only)
    print_table(rows)


def measure(ready, only=None):
    """All rows, or those of the measures named: measure, value, unit, bound (None: for information), better, note."""
    if not BINARY.exists():
        sys.exit(f"limits: {BINARY} is missing: cargo build --release")
    allow_many_files()
    rows = []
    for name in only or MEASURES:
        started = time.monotonic()
        if (busy := busy_share()) > 0.1:
            print(f"limits: the machine is {busy:.0%} busy already: both sides of a ratio grow with it", file=sys.stderr)
        rows += MEASURES[name](ready)
        print(f"limits: {name}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows


def print_table(rows):
    header = ("measure", "value", "bound", "", "note")
    lines = [header]
    for row in rows:
        bound, reached = "", ""
        if row["bound"] is not None:
            least = row["better"] == "higher"
            bound = f"{'≥' if least else '≤'} {row['bound']:g}"
            reached = "yes" if (row["value"] >= row["bound"]) == least or row["value"] == row["bound"] else "NO"
        lines.append((row["measure"], f"{row['value']:,.2f} {row['unit']}", bound, reached, row["note"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def row(name, value, unit, bound, note):
    return {"measure": name, "value": value, "unit": unit, "bound": bound, "better": "lower", "note": note}


# The measures, in the order of the table.


def start(ready):
    """From just before the process is made to the first answer, tried every millisecond as a supervisor would."""
    times = []
    for _ in range(STARTS):
        with Service(ready, wait=False) as service:
            service.wait_for_health()
            times.append((time.perf_counter() - service.started) * 1000)
    return [row("exec to first answer of /health", statistics.median(times), "ms", 50, spread(times, "ms"))]


def idle_memory(ready):
    """Resident memory when keys are at hand and nobody has asked for anything yet."""
    sizes = []
    for _ in range(STARTS // 3):
        with Service(ready) as service:
            sizes.append(service.resident_bytes() / 2**20)
    return [row("idle resident memory", statistics.median(sizes), "MB", 12, spread(sizes, "MB"))]


def task_memory(ready):
    """What a task with a title of 40 characters adds to resident memory, with everything it is kept in."""
    few, many, million = 10, 100_000, 1_000_000
    per_task = {many: [], million: []}
    seconds = []
    for _ in range(SEEDINGS):
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
    note = f"{spread(per_task[million], 'B')}; filled in {seconds[1]:.0f} s"
    return [
        row("memory per task, of 1,000,000", statistics.median(per_task[million]), "B", 250, note),
        row("memory per task, of 100,000", statistics.median(per_task[many]), "B", None, spread(per_task[many], "B")),
    ]


def growth(ready):
    """Time per request against the number of tasks the tenant has: one service a size, a burst at each in turn.

    Ids are drawn at random from those that exist, because the newest alone would always be in the processor's
    cache. A burst counts as a whole, so that one slow request in it does too. The services share one core and the
    client has the other: left to the kernel, a request takes 60 or 115 µs by where it is put, whatever the size.
    """
    cores = sorted(os.sched_getaffinity(0))
    operations = ["first page", "last page", "create", "patch", "delete"]
    seconds = collections.defaultdict(list)
    processor = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        sized = [stack.enter_context(Sized(ready, size)) for size in SIZES]
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, cores[-1:])
        for one in sized:
            one.service.pin(cores[:1])
        for operation in operations:  # once for nothing: connections are made, buffers grown
            for one in sized:
                one.burst(operation)
        for operation in operations[:2]:
            # Before anything is deleted: ids are then known to have no gaps.
            for turn in range(BURSTS // 4):
                for one in rotated(sized, turn):
                    keep(one.burst(operation), seconds[operation, one.size], processor[operation, one.size])
        for turn in range(BURSTS):
            for operation in operations[2:]:
                for one in rotated(sized, turn):
                    keep(one.burst(operation), seconds[operation, one.size], processor[operation, one.size])
        for one in sized:
            one.check_size()

    rows = []
    least = SIZES[0]
    for operation in operations[2:] + operations[:2]:
        for size in reversed(SIZES[1:]):
            bound = 1.5 if size == SIZES[-1] and "page" not in operation else None
            ratio = statistics.median(seconds[operation, size]) / statistics.median(seconds[operation, least])
            cpu = [statistics.median(processor[operation, count]) * 1e6 for count in (size, least)]
            microseconds = [statistics.median(seconds[operation, count]) * 1e6 for count in (size, least)]
            note = (
                f"{microseconds[0]:.0f} ÷ {microseconds[1]:.0f} µs; the service's processor time: "
                f"{cpu[0]:.0f} ÷ {cpu[1]:.0f} µs; slowest burst: {max(seconds[operation, size]) * 1e6:.0f} µs a request"
            )
            name = f"{operation} of 100" if "page" in operation else operation
            rows.append(row(f"{name} at {size:,} tasks ÷ at {least:,}", ratio, "×", bound, note))
    return rows


def half_open(ready):
    """What others notice of 2,000 connections that never finish a request."""
    with Service(ready) as service:
        service.add_tasks("fabrikam/editor", 10)
        hold = functools.partial(hold_half_open, service.port, ready["tokens"]["contoso/editor"])
        quiet, disturbed, reports = in_turns(lambda: list_with_wrk(service, "fabrikam/editor"), hold)
    held = min(report["held"] for report in reports)
    closed = sum(report["closed"] for report in reports)
    note = f"{p99_note(disturbed, quiet)}; {held:,} held, {closed:,} closed by the service and opened anew"
    return [p99_row(f"p99 beside {STRANGERS:,} half-open connections ÷ without", disturbed, quiet, 2, note)]


def neighbour(ready):
    """What a tenant's editor notices of another tenant's admin, who lists 100,000 tasks over and over."""
    with Service(ready) as service:
        service.add_tasks("fabrikam/editor", 10)
        service.add_tasks("contoso/editor", 100_000)
        loop = functools.partial(list_in_a_loop, service.port, ready["tokens"]["contoso/admin"])
        quiet, disturbed, reports = in_turns(lambda: list_with_wrk(service, "fabrikam/editor"), loop)
    times = [report["seconds"] * 1000 / report["lists"] for report in reports]
    megabytes = reports[0]["bytes"] / reports[0]["lists"] / 1e6
    note = f"{p99_note(disturbed, quiet)}; a list of {megabytes:.1f} MB took {statistics.median(times):.0f} ms"
    return [p99_row("p99 beside another tenant's lists of 100,000 ÷ without", disturbed, quiet, 3, note)]


MEASURES = {
    "start": start,
    "idle_memory": idle_memory,
    "task_memory": task_memory,
    "growth": growth,
    "half_open": half_open,
    "neighbour": neighbour,
}


# The service.


class Failed(Exception):
    """Something was not as it must be for the figures to mean anything."""


class Service:
    """A service of its own on a free port, in an empty folder, with nothing in its environment but its settings."""

    def __init__(self, ready, wait=True):
        self.tokens = ready["tokens"]
        self.port = free_port()
        self.wait = wait
        self.log = subprocess.DEVNULL
        self.settings = {
            "AZURE_API_CLIENT_ID": ready["client_id"],
            "AZURE_AUTHORITY_HOST": ready["entra"],
            "ALLOWED_TENANT_IDS": ",".join(ready["tenants"].values()),
            "MAX_TASKS_PER_TENANT": "2000000",
            "PORT": str(self.port),
        }

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="limits-")
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [BINARY], cwd=self.folder.name, env=self.settings, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=self.log,
        )
        try:
            if self.wait:
                self.wait_for_health()
                self.wait_for_keys()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def wait_for_health(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with Connection(self.port) as connection:
                    connection.ask(request("GET", "/health"))
                return
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"the service did not start: exit code {self.process.returncode}") from None
                time.sleep(0.001)

    def wait_for_keys(self):
        deadline = time.monotonic() + PATIENCE
        with Connection(self.port) as connection:
            while connection.ask(request("GET", "/ready"), may_fail=True) is None:
                if time.monotonic() > deadline:
                    raise Failed("the service does not get ready: is the stand-in for Entra up?")
                time.sleep(0.01)

    def pin(self, cores):
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            os.sched_setaffinity(int(thread), cores)

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024

    def processor_seconds(self):
        """Of all its threads, by the scheduler's own clock: unlike wall time, no client is in it."""
        threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def add_tasks(self, person, count, first=0):
        """Creates tasks as fast as the service takes them: two connections, requests sent without waiting."""
        errors = []
        half = count // 2
        threads = [
            threading.Thread(target=self.add_in_batches, args=(person, *part, errors))
            for part in ((first, first + half), (first + half, first + count))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def add_in_batches(self, person, start, end, errors):
        try:
            with Connection(self.port) as connection:
                for first in range(start, end, 50):
                    numbers = range(first, min(first + 50, end))
                    connection.ask_at_once([create_task(self.tokens[person], number) for number in numbers])
        except BaseException as error:  # raised again by whoever waits for the thread
            errors.append(error)


class Sized:
    """A service whose tenant contoso has so many tasks, and bursts of requests that leave it so."""

    def __init__(self, ready, size):
        self.size = size
        self.service = Service(ready)
        self.admin, self.editor = ready["tokens"]["contoso/admin"], ready["tokens"]["contoso/editor"]
        self.ids = list(range(1, size + 1))

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.service)
            self.service.add_tasks("contoso/editor", self.size)
            self.as_admin = stack.enter_context(Connection(self.service.port))
            self.as_editor = stack.enter_context(Connection(self.service.port))
            for connection in [self.as_admin, self.as_editor]:
                # One that has not asked for anything is closed before the larger services are filled.
                connection.ask(request("GET", "/health"))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def burst(self, operation):
        """Seconds and the service's processor seconds per request."""
        connection = self.as_editor if operation == "create" else self.as_admin
        requests = [self.request(operation) for _ in range(BURST)]
        processor = self.service.processor_seconds()
        started = time.perf_counter()
        answers = [connection.ask(one) for one in requests]
        seconds = time.perf_counter() - started
        processor = self.service.processor_seconds() - processor
        if operation == "create":
            self.ids += [json.loads(answer)["id"] for answer in answers]
        elif "page" in operation and any(answer.count(b'"id":') != 100 for answer in answers):
            raise Failed(f"a page at {self.size:,} tasks has not 100")
        return seconds / BURST, processor / BURST

    def request(self, operation):
        match operation:
            case "create":
                return create_task(self.editor, len(self.ids))
            case "patch":
                return request("PATCH", f"/api/tasks/{random.choice(self.ids)}", self.admin, b'{"completed":true}')
            case "delete":
                return request("DELETE", f"/api/tasks/{self.take_one()}", self.admin)
            case "first page":
                return request("GET", "/api/tasks?limit=100", self.admin)
            case "last page":
                after = f"&after={self.size - 100}" if self.size > 100 else ""
                return request("GET", f"/api/tasks?limit=100{after}", self.admin)

    def take_one(self):
        place = random.randrange(len(self.ids))
        self.ids[place], self.ids[-1] = self.ids[-1], self.ids[place]
        return self.ids.pop()

    def check_size(self):
        """Every task created and not deleted is there, and no other; of a few, to be quick."""
        if len(self.ids) != self.size:
            raise Failed(f"{len(self.ids):,} tasks where {self.size:,} should have stayed")
        if self.size <= 1000:
            connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE)
            connection.request("GET", "/api/tasks", headers={"Authorization": f"Bearer {self.admin}"})
            tasks = json.load(connection.getresponse())
            connection.close()
            if sorted(self.ids) != [task["id"] for task in tasks]:
                raise Failed("the tasks listed are not those that were created and not deleted")


# Clients.


def request(method, path, token=None, body=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "\r\n"]).encode() + (body or b"")


@functools.cache
def create_head(token):
    return request("POST", "/api/tasks", token, b" " * len(b'{"title":""}' + b" " * 40)).partition(b"\r\n\r\n")[0]


def create_task(token, number):
    """A task with a title of 40 characters, each another one: a store that shared equal titles would gain nothing."""
    return b'%b\r\n\r\n{"title":"water the plants on floor %014d"}' % (create_head(token), number)


class Connection:
    """A blocking keep-alive connection: one request at a time, or a batch sent before any answer is read."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, message, may_fail=False):
        """The answer's body, raw. With `may_fail`, None for an answer other than 200."""
        self.socket.sendall(message)
        answer = self.receive()
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self.receive()
        length = re.search(rb"\r\ncontent-length: *(\d+)", answer[:end], re.IGNORECASE)
        if length:
            while len(answer) < end + 4 + int(length[1]):
                answer += self.receive()
        else:  # in chunks: no other chunk of JSON ends like the last one
            while not answer.endswith(b"\r\n0\r\n\r\n"):
                answer += self.receive()
        if not answer.startswith(b"HTTP/1.1 200 "):
            if may_fail:
                return None
            asked, answered = (text.partition(b"\r\n")[0].decode() for text in (message, answer))
            raise Failed(f"{asked} was answered {answered}")
        return answer[end + 4 :]

    def ask_at_once(self, messages):
        """Only for answers that cannot contain a status line themselves."""
        self.socket.sendall(b"".join(messages))
        good, rest = b"HTTP/1.1 200", b""
        answered = 0
        while answered < len(messages):
            received = rest + self.receive()
            if refusal := re.search(rb"HTTP/1.1 [^2]\d*", received):
                raise Failed(f"one of many requests was answered {refusal[0].decode()}")
            answered += received.count(good)
            rest = received[1 - len(good) :]  # a status line may arrive in two parts, and none is counted twice

    def receive(self):
        received = self.socket.recv(256 * 1024)
        if not received:
            raise Failed("the service closed a connection")
        return received


def list_with_wrk(service, person):
    """One slice of a person's lists, two connections in a closed loop.

    wrk makes up for the requests it could not send while it waited for an answer (coordinated omission): its p99
    is that of somebody who comes at any moment, so a stall counts by its length and not as one slow request.
    """
    command = ["wrk", "-t1", "-c2", f"-d{SLICE_SECONDS}s", "--timeout", "5s", "-s", HERE / "limits_wrk.lua"]
    command += ["-H", f"Authorization: Bearer {service.tokens[person]}", f"http://127.0.0.1:{service.port}/api/tasks"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=SLICE_SECONDS + PATIENCE)
    figures = re.search(r"^limits (\{.*\})$", finished.stdout, re.MULTILINE)
    if finished.returncode or not figures:
        raise Failed(f"wrk failed: {finished.stdout}{finished.stderr}")
    figures = json.loads(figures[1])
    if figures["failed"] or not figures["requests"]:
        raise Failed(f"of the measured requests some failed: {figures}")
    return figures


# Whoever disturbs: processes of their own, which a Python thread would not be.


class Disturbance:
    """Runs `work(under_way, stop)` in a process until the end of the block; `report` is what it returned.

    The block starts once `work` has called `under_way`.
    """

    def __init__(self, work):
        fork = multiprocessing.get_context("fork")
        self.stop = fork.Event()
        self.results, results = fork.Pipe(duplex=False)
        self.process = fork.Process(target=self.run, args=(work, results), daemon=True)

    def run(self, work, results):
        # It stands for clients on machines of their own: they would not take the processor from who measures.
        os.nice(19)
        try:
            results.send(("done", work(lambda: results.send(("under way", None)), self.stop)))
        except BaseException as error:
            results.send(("failed", f"{type(error).__name__}: {error}"))

    def __enter__(self):
        self.process.start()
        try:
            self.expect("under way")
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, error_type, *_):
        self.stop.set()
        try:
            if error_type is None:
                self.report = self.expect("done")
        finally:
            self.process.join(PATIENCE)
            self.process.kill()

    def expect(self, wanted):
        if not self.results.poll(PATIENCE):
            raise Failed(f"a disturbance is stuck before it is {wanted}")
        what, result = self.results.recv()
        if what != wanted:
            raise Failed(f"a disturbance is {what} instead of {wanted}: {result}")
        return result


def in_turns(measured, disturbance):
    """The slices without and with the disturbance, and what each disturbance reported."""
    quiet, disturbed, reports = [], [], []
    measured()  # once for nothing
    for _ in range(SLICES):
        quiet.append(measured())
        with Disturbance(disturbance) as disturbing:
            disturbed.append(measured())
        reports.append(disturbing.report)
        time.sleep(SETTLE_SECONDS)
    return quiet, disturbed, reports


def hold_half_open(port, token, under_way, stop):
    """Keeps 2,000 connections busy with nothing. What the service closes is opened anew within a second.

    Half say nothing. A quarter stop in a head, half of those in its first line, and send a byte a second. A quarter
    are someone's who may come in: they get past authentication, announce a body, and send a byte of it a second.
    """
    beginnings = [
        b"", b"", b"", b"",
        b"GET /api/ta", b"GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    ] + [request("POST", "/api/tasks", token, b'{"title":"' + b"a" * 1000)[:-1000]] * 2
    strangers = [Stranger(port, beginnings[number % len(beginnings)]) for number in range(STRANGERS)]
    selector = selectors.DefaultSelector()
    for stranger in strangers:
        stranger.open(selector)
    under_way()
    ticks = 50  # a second: everyone's turn comes once a second, spread out so as not to be a burst
    tick = 0
    began = time.monotonic()
    while not stop.is_set():
        tick += 1
        for stranger in strangers[tick % ticks :: ticks]:
            stranger.take_turn(selector)
        while (left := began + tick / ticks - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.listen(selector)
    report = {
        "held": sum(stranger.socket is not None for stranger in strangers),
        "closed": sum(stranger.closed for stranger in strangers),
    }
    for stranger in strangers:
        stranger.close(selector)
    return report


class Stranger:
    """A connection that begins a request, if that, and never ends it."""

    def __init__(self, port, beginning):
        self.port, self.beginning = port, beginning
        self.socket = None
        self.closed = 0

    def open(self, selector):
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        # Closed with a reset, so that thousands of closed connections do not use up the ports.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.sendall(self.beginning)
        self.socket.setblocking(False)
        selector.register(self.socket, selectors.EVENT_READ, self)

    def take_turn(self, selector):
        try:
            if self.socket is None:
                self.open(selector)
            elif self.beginning:
                self.socket.send(b"a")
        except OSError:
            self.was_closed(selector)

    def listen(self, selector):
        """An answer, such as a 408, is read and dropped; the end of the connection is noted."""
        try:
            if not self.socket.recv(4096):
                self.was_closed(selector)
        except OSError:
            self.was_closed(selector)

    def was_closed(self, selector):
        self.closed += 1
        self.close(selector)

    def close(self, selector):
        if self.socket is not None:
            with contextlib.suppress(KeyError):
                selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


def list_in_a_loop(port, token, under_way, stop):
    """Asks for everything the tenant has, reads it to the end, and asks again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    buffer = memoryview(bytearray(2**20))
    received, lists, seconds = 0, 0, 0.0
    while not stop.is_set():
        started = time.monotonic()
        connection.request("GET", "/api/tasks", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"the long list was answered {answer.status}")
        while count := answer.readinto(buffer):
            received += count
        lists, seconds = lists + 1, seconds + time.monotonic() - started
        if lists == 1:
            under_way()
    return {"lists": lists, "seconds": seconds, "bytes": received}


# Figures.


def p99_row(name, disturbed, quiet, bound, note):
    return row(name, median_of(disturbed, "p99") / median_of(quiet, "p99"), "×", bound, note)


def p99_note(disturbed, quiet):
    p99s = [f"{median_of(side, 'p99') / 1000:.2f}" for side in (disturbed, quiet)]
    p50s = [f"{median_of(side, 'p50') / 1000:.2f}" for side in (disturbed, quiet)]
    return f"{' ÷ '.join(p99s)} ms, {spread([one['p99'] / 1000 for one in disturbed], 'ms')}; p50 {' ÷ '.join(p50s)} ms"


def median_of(slices, figure):
    return statistics.median(one[figure] for one in slices)


def spread(figures, unit):
    return f"{min(figures):.2f} to {max(figures):.2f} {unit} in {len(figures)} runs"


def keep(figures, *lists):
    for figure, kept in zip(figures, lists):
        kept.append(figure)


def rotated(items, turn):
    """Each comes first in its turn: the first of a row finds the processor in another state than the rest."""
    first = turn % len(items)
    return items[first:] + items[:first]


# The machine.


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def busy_share():
    """How much of the machine others use at the moment, from 0 to 1."""
    samples = []
    for _ in range(2):
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, idle, waiting, *_ = map(int, fields)
        samples.append((user + nice + system, user + nice + system + idle + waiting))
        time.sleep(SETTLE_SECONDS)
    (busy, total), (busy_later, total_later) = samples
    return (busy_later - busy) / max(total_later - total, 1)


def allow_many_files():
    """For the strangers here and, inherited, at the service: the usual 1,024 would refuse half of them."""
    wanted = 4 * STRANGERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < STRANGERS + 100:
        raise Failed(f"{hard} open files are allowed, {STRANGERS:,} connections cannot be held")
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"limits: {failure}")

"""Measures what clients without a valid token can do: the most expensive token, and bursts of connects."""

import base64
import json
import os
import pathlib
import re
import selectors
import socket
import statistics
import subprocess
import time

from .machine import Failed, cores, on_core
from .report import row, spread
from .service import RawConnection, Service, http_request

ROUNDS = 5
SLICE_SECONDS = 1
TOKEN_BYTES = 16 * 1024
# The service rejects a token with more values or escapes before it parses them.
MAX_VALUES = 900
MAX_ESCAPES = 2000
HOSTILE_CONNECTIONS = 200
# A connect that the system does not accept at once is repeated after a second.
SLOW_CONNECT_SECONDS = 0.9


def expensive_token(ready):
    """Measures the processor time of a request with each hostile token, compared with a cached token."""
    with Service(ready) as service:
        service.pin({cores().server})
        service.add_tasks("contoso/editor", 10)
        cached = service.tokens["contoso/editor"]
        hostile = hostile_tokens(cached)
        ratios = {name: [] for name in hostile}
        for _ in range(ROUNDS):
            base = request_seconds(service, cached)
            for name, token in hostile.items():
                ratios[name].append(request_seconds(service, token) / base)
        worst_name = max(ratios, key=lambda name: statistics.median(ratios[name]))
        worst = statistics.median(ratios[worst_name])
        note = f"{worst_name}, {spread(ratios[worst_name], '×')}"
        rows = [row("most expensive token of an unauthenticated client ÷ a cached one", worst, "×", 4, note)]
        for name, figures in ratios.items():
            rows.append(row(f"  {name}", statistics.median(figures), "×", None, spread(figures, "×"), published=False))
        latencies = latencies_beside(service, cached, hostile[worst_name])
    quiet, disturbed = (statistics.median(figures) * 1000 for figures in latencies)
    name = f"p50 of a valid user beside {HOSTILE_CONNECTIONS} connections that send it"
    return [*rows, row(name, disturbed, "ms", 3, f"{quiet:.2f} ms without; both on one core")]


def hostile_tokens(valid):
    """Returns tokens of 16 KiB with a wrong signature, by name."""
    header, payload, signature = valid.split(".")
    claims = json.loads(decode(payload))
    room = (TOKEN_BYTES - len(header) - len(signature) - 2) * 3 // 4
    wrong = signature[:-20] + "A" * 20
    unlisted = claims | {"tid": "99999999-9999-4999-8999-999999999999"}

    def token(claims, before, part, after):
        text = json.dumps(claims)
        filling = ',"y":"'
        fits = (room - len((text + before + after).encode()) - 10) // len(part.encode())
        limit = MAX_ESCAPES if "\\" in part else MAX_VALUES if "," in part else fits
        filled = text[:-1] + before + part * min(fits, limit) + after + filling
        filled += "y" * (room - len(filled.encode()) - 2) + '"}'
        return f"{header}.{encode(filled)}.{wrong}"

    without_roles = {name: value for name, value in claims.items() if name != "roles"}
    fillers = {
        "one long string": (',"x":"', "x", '"'),
        "a string of escapes": (',"x":"', "\\u00e9", '"'),
        "a string of short escapes": (',"x":"', "\\n", '"'),
        "many members": (',"":0', ',"":0', ""),
        "many non-ASCII names": (',"é":0', ',"é":0', ""),
        "nested lists": (',"x":[0', ",[]", "]"),
        "numbers": (',"x":[0', ",1", "]"),
        "roles": (',"roles":[""', ',""', "]"),
    }
    tokens = {name: token(without_roles, *filler) for name, filler in fillers.items()}
    tokens["an unlisted tenant"] = token(unlisted, *fillers["many members"])
    return tokens


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(text):
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def request_seconds(service, token):
    """Returns the service's processor time for one request."""
    before = service.processor_seconds()
    output = run_clients(service, token, SLICE_SECONDS).communicate()[0]
    spent = service.processor_seconds() - before
    if not (requests := re.search(r"(\d+) requests in", output)):
        raise Failed(f"wrk received no responses:\n{output}")
    return spent / int(requests[1])


def run_clients(service, token, seconds, connections=32):
    """Starts wrk. Unlike `run_wrk`, it accepts responses that are not 200."""
    command = ["wrk", "--threads", "1", "--connections", connections, "--duration", f"{seconds}s"]
    command += ["--header", f"Authorization: Bearer {token}", f"http://127.0.0.1:{service.port}/api/tasks"]
    return subprocess.Popen(on_core(cores().client, command), stdout=subprocess.PIPE, text=True)


def latencies_beside(service, valid, hostile):
    """Returns the latencies of a user in seconds: without and with the hostile clients."""
    request = http_request("GET", "/api/tasks", valid)
    quiet, disturbed = [], []
    with RawConnection(service.port) as connection:
        for _ in range(ROUNDS):
            quiet += latencies(connection, request)
            attack = run_clients(service, hostile, SLICE_SECONDS + 1, HOSTILE_CONNECTIONS)
            time.sleep(0.5)
            disturbed += latencies(connection, request)
            attack.communicate()
    return quiet, disturbed


def latencies(connection, request):
    times = []
    end = time.monotonic() + SLICE_SECONDS
    while time.monotonic() < end:
        started = time.perf_counter()
        connection.send(request)
        times.append(time.perf_counter() - started)
        time.sleep(0.005)
    return times


def connects(ready):
    """Measures the slowest of many connects at once to an idle service."""
    limit = int(pathlib.Path("/proc/sys/net/core/somaxconn").read_text())
    rows = []
    for count in (1000, 4000):
        slowest = []
        for _ in range(ROUNDS):
            with Service(ready) as service:
                slowest.append(slowest_connect(service.port, count))
        name = f"slowest of {count:,} connects at once"
        note = f"{spread(slowest, 's')}; the system accepts {limit} beforehand"
        rows.append(row(name, statistics.median(slowest), "s", SLOW_CONNECT_SECONDS, note))
    return rows


def slowest_connect(port, count):
    selector = selectors.DefaultSelector()
    sockets = []
    started = time.perf_counter()
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        selector.register(client, selectors.EVENT_WRITE)
        sockets.append(client)
    slowest = 0
    while selector.get_map():
        for key, _ in selector.select(timeout=10):
            if error := key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise Failed(f"a connect failed: {os.strerror(error)}")
            selector.unregister(key.fileobj)
        slowest = time.perf_counter() - started
    for client in sockets:
        client.close()
    return slowest

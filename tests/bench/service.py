"""Runs tenant-tasks for the parts that measure it alone, and contains their HTTP client."""

import concurrent.futures
import functools
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

from .machine import Failed, free_port
from .paths import SERVICE

# A measurement fails if a response takes longer.
TIMEOUT_SECONDS = 30
BATCH = 50


class Service:
    """A service on a free port, in an empty folder. Its environment contains only its settings."""

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
        self.folder = tempfile.TemporaryDirectory(prefix="bench-service-")
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [SERVICE],
            cwd=self.folder.name,
            env=self.settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
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
        """Tries every millisecond."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                with RawConnection(self.port) as connection:
                    connection.send(http_request("GET", "/health"))
                return
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"the service did not start: exit code {self.process.returncode}") from None
                time.sleep(0.001)

    def wait_for_keys(self):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        with RawConnection(self.port) as connection:
            while connection.send(http_request("GET", "/ready"), may_fail=True) is None:
                if time.monotonic() > deadline:
                    raise Failed("the service did not become ready: is the mock Entra running?")
                time.sleep(0.01)

    def pin(self, cores):
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            os.sched_setaffinity(int(thread), cores)

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024

    def processor_seconds(self):
        """Returns the processor time of all threads. Unlike wall time, it excludes the client."""
        threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def add_tasks(self, user, count, first=0, keyed=False):
        """Creates tasks as fast as possible: two connections, each with batches of pipelined requests.

        If `keyed`, each request has an idempotency key.
        """
        middle, end = first + count // 2, first + count
        with concurrent.futures.ThreadPoolExecutor() as pool:
            halves = [pool.submit(self.add_in_batches, user, *half, keyed) for half in [(first, middle), (middle, end)]]
        for half in halves:
            half.result()

    def add_in_batches(self, user, start, end, keyed):
        with RawConnection(self.port) as connection:
            for first in range(start, end, BATCH):
                numbers = range(first, min(first + BATCH, end))
                connection.send_batch([create_request(self.tokens[user], number, keyed) for number in numbers])


def http_request(method, path, token=None, body=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "\r\n"]).encode() + (body or b"")


def create_request(token, number, keyed=False):
    """Returns a request that creates a task with a unique title of 40 characters.

    Unique titles prevent a store from sharing equal ones.
    """
    key = b"\r\nIdempotency-Key: %d" % number if keyed else b""
    return create_request_head(token) + key + b'\r\n\r\n{"title":"water the plants on floor %014d"}' % number


@functools.cache
def create_request_head(token):
    body = b'{"title":"%b"}' % (b" " * 40)
    return http_request("POST", "/api/tasks", token, body).partition(b"\r\n\r\n")[0]


class RawConnection:
    """A keep-alive connection without the overhead of an HTTP library."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, request, may_fail=False):
        """Returns the raw body of the response. With `may_fail`, returns None for any status but 200."""
        self.socket.sendall(request)
        response = self.receive()
        while (end := response.find(b"\r\n\r\n")) < 0:
            response += self.receive()
        length = re.search(rb"\r\ncontent-length: *(\d+)", response[:end], re.IGNORECASE)
        if length:
            while len(response) < end + 4 + int(length[1]):
                response += self.receive()
        else:  # chunked: no earlier chunk of JSON ends like the last one
            while not response.endswith(b"\r\n0\r\n\r\n"):
                response += self.receive()
        if not response.startswith(b"HTTP/1.1 200 "):
            if may_fail:
                return None
            first_lines = [text.partition(b"\r\n")[0].decode() for text in (request, response)]
            raise Failed(f"{first_lines[0]} returned {first_lines[1]}")
        return response[end + 4 :]

    def send_batch(self, requests):
        """Sends all requests before it reads a response. The bodies must not contain a status line."""
        self.socket.sendall(b"".join(requests))
        success, rest = b"HTTP/1.1 200", b""
        responses = 0
        while responses < len(requests):
            received = rest + self.receive()
            if error := re.search(rb"HTTP/1.1 [^2]\d*", received):
                raise Failed(f"a request of a batch returned {error[0].decode()}")
            responses += received.count(success)
            rest = received[1 - len(success) :]  # a status line may arrive in two parts; none is counted twice

    def receive(self):
        received = self.socket.recv(256 * 1024)
        if not received:
            raise Failed("the service closed a connection")
        return received

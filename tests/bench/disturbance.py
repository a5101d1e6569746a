"""Clients that disturb others: half-open connections and a loop of long lists.

They run in processes, because threads would share Python's interpreter lock with the measurement.
"""

import contextlib
import http.client
import multiprocessing
import os
import selectors
import socket
import struct
import time

from .machine import Failed
from .service import TIMEOUT_SECONDS, http_request

SLICES = 8
SETTLE_SECONDS = 0.5  # after a disturbance, for example to close 2,000 connections
HALF_OPEN_CONNECTIONS = 2000


def in_turns(measured, disturb):
    """Alternates slices without and with the disturbance. Returns both, and a report of each disturbance."""
    quiet, disturbed, reports = [], [], []
    measured()  # warm-up
    for _ in range(SLICES):
        quiet.append(measured())
        with Disturbance(disturb) as disturbance:
            disturbed.append(measured())
        reports.append(disturbance.report)
        time.sleep(SETTLE_SECONDS)
    return quiet, disturbed, reports


class Disturbance:
    """Runs `disturb(started, stop)` in a process until the end of the block. `report` is its return value.

    The block starts when `disturb` has called `started`.
    """

    def __init__(self, disturb):
        fork = multiprocessing.get_context("fork")
        self.stop = fork.Event()
        self.results, results = fork.Pipe(duplex=False)
        self.process = fork.Process(target=self.run, args=(disturb, results), daemon=True)

    def run(self, disturb, results):
        # It represents clients on other machines, which would not use the processor of the measurement.
        os.nice(19)
        try:
            results.send(("finished", disturb(lambda: results.send(("started", None)), self.stop)))
        except BaseException as error:
            results.send(("failed", f"{type(error).__name__}: {error}"))

    def __enter__(self):
        self.process.start()
        try:
            self.expect("started")
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, error_type, *_):
        self.stop.set()
        try:
            if error_type is None:
                self.report = self.expect("finished")
        finally:
            self.process.join(TIMEOUT_SECONDS)
            self.process.kill()

    def expect(self, wanted):
        if not self.results.poll(TIMEOUT_SECONDS):
            raise Failed(f"a disturbance has not {wanted} after {TIMEOUT_SECONDS} s")
        state, result = self.results.recv()
        if state != wanted:
            raise Failed(f"a disturbance has {state} instead of {wanted}: {result}")
        return result


def hold_half_open_connections(port, token, started, stop):
    """Holds 2,000 connections that never complete a request. Reopens closed connections within a second.

    Half of them send nothing. A quarter stop within the head, half of these within the request line, and then send one
    byte per second. A quarter pass authentication, announce a body and send one byte of it per second.
    """
    half_a_line = b"GET /api/ta"
    half_a_head = b"GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    half_a_body = http_request("POST", "/api/tasks", token, b'{"title":"' + b"a" * 1000)[:-1000]
    beginnings = [b"", b"", b"", b"", half_a_line, half_a_head, half_a_body, half_a_body]
    clients = [SlowClient(port, beginnings[number % len(beginnings)]) for number in range(HALF_OPEN_CONNECTIONS)]
    selector = selectors.DefaultSelector()
    for client in clients:
        client.open(selector)
    started()
    ticks_per_second = 50  # spreads the clients over the second instead of one burst
    tick = 0
    began = time.monotonic()
    while not stop.is_set():
        tick += 1
        for client in clients[tick % ticks_per_second :: ticks_per_second]:
            client.send_byte(selector)
        while (left := began + tick / ticks_per_second - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.read(selector)
    report = {
        "held": sum(client.socket is not None for client in clients),
        "closed": sum(client.closed for client in clients),
    }
    for client in clients:
        client.close(selector)
    return report


class SlowClient:
    """A connection that sends the beginning of a request, or nothing, and never completes it."""

    def __init__(self, port, beginning):
        self.port, self.beginning = port, beginning
        self.socket = None
        self.closed = 0

    def open(self, selector):
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_SECONDS)
        # Closes with a reset. Otherwise thousands of closed connections would use up the ports.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.sendall(self.beginning)
        self.socket.setblocking(False)
        selector.register(self.socket, selectors.EVENT_READ, self)

    def send_byte(self, selector):
        """Also reopens the connection if the service has closed it."""
        try:
            if self.socket is None:
                self.open(selector)
            elif self.beginning:
                self.socket.send(b"a")
        except OSError:
            self.was_closed(selector)

    def read(self, selector):
        """Discards a response such as 408, and records the end of the connection."""
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


def list_in_a_loop(port, token, started, stop):
    """Lists all tasks of the tenant repeatedly and reads each list to the end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    buffer = memoryview(bytearray(2**20))
    received, lists, seconds = 0, 0, 0.0
    while not stop.is_set():
        began = time.monotonic()
        connection.request("GET", "/api/tasks", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        if response.status != 200:
            raise Failed(f"the long list returned {response.status}")
        while count := response.readinto(buffer):
            received += count
        lists, seconds = lists + 1, seconds + time.monotonic() - began
        if lists == 1:
            started()
    return {"lists": lists, "seconds": seconds, "bytes": received}

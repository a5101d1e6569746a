"""Measures the time per request against the number of tasks of the tenant."""

import collections
import contextlib
import http.client
import json
import os
import random
import statistics
import time

from .machine import Failed
from .plan import rotated
from .report import row
from .service import TIMEOUT_SECONDS, RawConnection, Service, create_request, http_request

SIZES = [10**exponent for exponent in range(2, 7)]
BURSTS = 200
BURST_REQUESTS = 20  # a fifth of the smallest size, so that a burst hardly changes the size
CHANGES = ["create", "patch", "delete"]
PAGES = ["first page", "last page"]


def growth(ready):
    """Sends bursts of requests in turn to services of different sizes.

    Ids are random, because the processor would always cache the newest task. A burst is measured as a whole, so that
    one slow request counts too. The services share one core and the client uses another: without pinning, a request
    takes 60 or 115 µs at any size, depending on the kernel's placement.
    """
    cores = sorted(os.sched_getaffinity(0))
    seconds = collections.defaultdict(list)
    processor = collections.defaultdict(list)

    def run_bursts(operation, turn):
        for service in rotated(services, turn):
            wall_time, processor_time = service.run_burst(operation)
            seconds[operation, service.size].append(wall_time)
            processor[operation, service.size].append(processor_time)

    with contextlib.ExitStack() as stack:
        services = [stack.enter_context(SizedService(ready, size)) for size in SIZES]
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, cores[-1:])
        for sized in services:
            sized.service.pin(cores[:1])
        for operation in PAGES + CHANGES:  # warm-up: connects and allocates buffers
            for sized in services:
                sized.run_burst(operation)
        for operation in PAGES:
            # Before the measured deletions.
            for turn in range(BURSTS // 4):
                run_bursts(operation, turn)
        for turn in range(BURSTS):
            for operation in CHANGES:
                run_bursts(operation, turn)
        for sized in services:
            sized.check_size()
    return rows(seconds, processor)


def rows(seconds, processor):
    result = []
    smallest, largest = SIZES[0], SIZES[-1]
    for operation in CHANGES + PAGES:
        for size in reversed(SIZES[1:]):
            bound = 1.5 if size == largest and operation in CHANGES else None
            ratio = statistics.median(seconds[operation, size]) / statistics.median(seconds[operation, smallest])
            wall_times = [statistics.median(seconds[operation, count]) * 1e6 for count in (size, smallest)]
            processor_times = [statistics.median(processor[operation, count]) * 1e6 for count in (size, smallest)]
            note = (
                f"{wall_times[0]:.0f} ÷ {wall_times[1]:.0f} µs; the service's processor time: "
                f"{processor_times[0]:.0f} ÷ {processor_times[1]:.0f} µs; "
                f"slowest burst: {max(seconds[operation, size]) * 1e6:.0f} µs per request"
            )
            name = f"{operation} of 100" if operation in PAGES else operation
            name = f"{name} at {size:,} tasks ÷ at {smallest:,}"
            result.append(row(name, ratio, "×", bound, note, published=size == largest))
    return result


class SizedService:
    """A service with a fixed number of tasks in the tenant contoso. The bursts together leave the number unchanged."""

    def __init__(self, ready, size):
        self.size = size
        self.service = Service(ready)
        self.admin, self.editor = ready["tokens"]["contoso/admin"], ready["tokens"]["contoso/editor"]
        self.ids = list(range(1, size + 1))

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.service)
            self.service.add_tasks("contoso/editor", self.size)
            self.as_admin = stack.enter_context(RawConnection(self.service.port))
            self.as_editor = stack.enter_context(RawConnection(self.service.port))
            for connection in [self.as_admin, self.as_editor]:
                # A connection without a first request would time out while the larger services are filled.
                connection.send(http_request("GET", "/health"))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def run_burst(self, operation):
        """Returns seconds per request and the service's processor seconds per request."""
        connection = self.as_editor if operation == "create" else self.as_admin
        requests = [self.request(operation) for _ in range(BURST_REQUESTS)]
        processor = self.service.processor_seconds()
        started = time.perf_counter()
        bodies = [connection.send(request) for request in requests]
        seconds = time.perf_counter() - started
        processor = self.service.processor_seconds() - processor
        if operation == "create":
            self.ids += [json.loads(body)["id"] for body in bodies]
        elif operation in PAGES and any(body.count(b'"id":') != 100 for body in bodies):
            raise Failed(f"a page at {self.size:,} tasks does not contain 100 tasks")
        return seconds / BURST_REQUESTS, processor / BURST_REQUESTS

    def request(self, operation):
        match operation:
            case "create":
                return create_request(self.editor, len(self.ids))
            case "patch":
                return http_request("PATCH", f"/api/tasks/{random.choice(self.ids)}", self.admin, b'{"completed":true}')
            case "delete":
                return http_request("DELETE", f"/api/tasks/{self.remove_random_id()}", self.admin)
            case "first page":
                return http_request("GET", "/api/tasks?limit=100", self.admin)
            case "last page":
                after = f"&after={self.size - 100}" if self.size > 100 else ""
                return http_request("GET", f"/api/tasks?limit=100{after}", self.admin)

    def remove_random_id(self):
        place = random.randrange(len(self.ids))
        self.ids[place], self.ids[-1] = self.ids[-1], self.ids[place]
        return self.ids.pop()

    def check_size(self):
        """Fails unless the tasks are those created and not deleted. Lists them only where there are few."""
        if len(self.ids) != self.size:
            raise Failed(f"{len(self.ids):,} tasks remain instead of {self.size:,}")
        if self.size <= 1000:
            connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=TIMEOUT_SECONDS)
            connection.request("GET", "/api/tasks", headers={"Authorization": f"Bearer {self.admin}"})
            tasks = json.load(connection.getresponse())
            connection.close()
            if sorted(self.ids) != [task["id"] for task in tasks]:
                raise Failed("the list does not contain exactly the tasks created and not deleted")

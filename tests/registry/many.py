"""The cost of a registry with 10,000 tenants, compared to an empty one.

The mock Entra does not know these tenants. A replica tries to fetch their keys, as it would of real tenants.
"""

import contextlib
import statistics
import time

from bench.machine import Failed, processor_seconds
from bench.service import RawConnection, http_request

from .fixtures import TIMEOUT_SECONDS, Registry, Replica, fetch, memory_megabytes, migrate, start_database

TENANTS = 10_000
# The databases: one with an empty registry, one with all tenants.
SIZES = {"empty": "empty registry", "many": f"{TENANTS:,} tenants"}
STARTS = 5
# From the start of a replica to the measurement of its idle state, and the time of that measurement.
IDLE_AFTER_SECONDS = 10
IDLE_SECONDS = 10
LIST_ROUNDS = 5
LIST_SECONDS = 2


def many(setup):
    with start_database(*SIZES) as database:
        for name in SIZES:
            migrate(setup, database.url(name))
        add_tenants(setup, database)
        measure_starts(setup, database)
        for name in SIZES:
            measure_idle(setup, database, name)
        measure_lists(setup, database)


def add_tenants(setup, database):
    """Adds all tenants but the last by SQL, and contoso by a command, which also changes the version."""
    database.sql(
        "INSERT INTO allowed_tenants (tenant_id, name, status, added_by) "
        "SELECT md5(number::text)::uuid, 'Tenant ' || number, 'active', 'test' "
        f"FROM generate_series(1, {TENANTS - 1}) AS number",
        "many",
    )
    registry = Registry(setup, database.url("many"))
    registry.run("tenants", "add", setup.entra.tenant_id("contoso"), "--yes")


def measure_starts(setup, database):
    seconds = {name: [] for name in SIZES}
    for _ in range(STARTS):
        for name in SIZES:
            with Replica(setup, database.url(name), "/health", pause=0.001) as replica:
                seconds[name].append(replica.start_seconds)
    for name, size in SIZES.items():
        setup.report.add(f"many: start until /health, {size}", "s", seconds[name])


def measure_idle(setup, database, name):
    """Measures one replica without requests. No other process uses its database."""
    with Replica(setup, database.url(name), "/health") as replica:
        pid = replica.process.pid
        time.sleep(IDLE_AFTER_SECONDS)
        megabytes = memory_megabytes(pid, "VmRSS")
        before = time.monotonic(), processor_seconds(pid), count_commits(database, name)
        time.sleep(IDLE_SECONDS)
        after = time.monotonic(), processor_seconds(pid), count_commits(database, name)
    seconds, processor, commits = (end - start for start, end in zip(before, after, strict=True))
    size = SIZES[name]
    setup.report.add(f"many: memory after {IDLE_AFTER_SECONDS} s, {size}", "MB", [megabytes])
    setup.report.add(f"many: processor time when idle, {size}", "s per minute", [processor * 60 / seconds])
    setup.report.add(f"many: database transactions when idle, {size}", "per second", [commits / seconds])


def count_commits(database, name):
    return int(database.sql(f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'", "postgres"))


def measure_lists(setup, database):
    """Lists the tasks of fabrikam with one connection; both replicas allow it. The replicas take turns."""
    token = setup.entra.token("fabrikam")
    rates = {name: [] for name in SIZES}
    with contextlib.ExitStack() as stack:
        replicas = {name: stack.enter_context(Replica(setup, database.url(name), "/health")) for name in SIZES}
        for replica in replicas.values():
            await_status(replica, token, 200)
        await_status(replicas["empty"], setup.entra.token("contoso"), 403)
        await_status(replicas["many"], setup.entra.token("contoso"), 200)
        for _ in range(LIST_ROUNDS):
            for name, replica in replicas.items():
                rates[name].append(requests_per_second(replica, token))
    for name, size in SIZES.items():
        setup.report.add(f"many: GET /api/tasks, {size}", "per second", rates[name], worst=min)
    ratio = statistics.median(rates["many"]) / statistics.median(rates["empty"])
    setup.report.add(f"many: GET /api/tasks, {SIZES['many']} ÷ {SIZES['empty']}", "×", [ratio], worst=min)


def await_status(replica, token, expected):
    """Waits for a status. A replica may still be fetching keys."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (status := fetch(replica.url("/api/tasks"), token)[0]) != expected:
        if time.monotonic() > deadline:
            raise Failed(f"GET /api/tasks returned {status} instead of {expected}")
        time.sleep(0.1)


def requests_per_second(replica, token):
    """Sends one request after another."""
    request = http_request("GET", "/api/tasks", token)
    with RawConnection(replica.port) as connection:
        connection.send(request)
        started, requests = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < LIST_SECONDS:
            connection.send(request)
            requests += 1
    return requests / elapsed

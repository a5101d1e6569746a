"""Measures the service with tasks in PostgreSQL: compared to pgbench, with a second replica, and as tables grow.

The server is a temporary cluster with PostgreSQL's default settings, which flush each commit to disk. Compared sides
take turns in each round. A ratio divides figures of the same round, and the median of the rounds counts. Nothing is
pinned to a core: client, service and server share the machine, as do pgbench and the server.

pgbench runs the statements of the service's functions as a transaction, on the same number of connections: once one
statement after another, and once pipelined with one Sync. The service calls a function instead. pgbench neither parses
HTTP requests nor authenticates callers.
`standalone.py` shows how to run this part alone.
"""

import concurrent.futures
import contextlib
import json
import pathlib
import re
import statistics
import time

from support.cluster import Cluster

from .machine import Failed
from .paths import LUA
from .report import row
from .service import RawConnection, Service, create_request, http_request
from .standalone import part_parser, run_part
from .wrk import bearer, requests_per_second, run_wrk

ROUNDS = 5
SECONDS = 3
DATABASE_CONNECTIONS = 10
HTTP_CONNECTIONS = 32
USER = "11111111-1111-4111-8111-000000000002"  # contoso's editor in the mock Entra
COLUMNS = "id, user_id, owner_name, title, completed"
GROWTH_REQUESTS = 400
SIZES = [(100, 1), (10_000, 100), (1_000_000, 10_000), (2_000_000, 10_000)]  # tasks, tenants
TASKS_PER_TENANT = 100


def main():
    run_part(measure, part_parser(__doc__).parse_args().ready)


def measure(ready):
    rows = []
    with Server() as server:
        with Replica(ready, server) as first, Replica(ready, server) as second:
            rows += speed(ready, server, [first, second])
        rows += growth(ready, server)
    return rows


class Replica(Service):
    def __init__(self, ready, server):
        super().__init__(ready)
        self.settings |= {"DATABASE_URL": server.url, "MAX_DATABASE_CONNECTIONS": str(DATABASE_CONNECTIONS)}


class Server(Cluster):
    """A temporary cluster with the database of the service."""

    def __enter__(self):
        super().__enter__()
        self.sql("CREATE ROLE tasks LOGIN", "CREATE DATABASE tasks OWNER tasks", database="postgres")
        self.url = f"postgres://tasks@/tasks?host={self.folder}"
        return self

    def sql(self, *statements, database="tasks"):
        options = [option for statement in statements for option in ("--command", statement)]
        return self.run("psql", "--host", self.folder, "--username", "postgres", "-qtA", *options, database)

    def pgbench(self, script):
        """Returns transactions per second."""
        path = pathlib.Path(self.folder) / "script.sql"
        path.write_text(script)
        options = f"--no-vacuum --protocol prepared --jobs 1 --time {SECONDS} --username tasks"
        options += f" --client {DATABASE_CONNECTIONS}"
        output = self.run("pgbench", "--host", self.folder, *options.split(), "--file", path, "tasks")
        if "number of failed transactions: 0 " not in output:
            raise Failed(f"pgbench transactions failed:\n{output}")
        return float(re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)[1])


# Speed


def transaction(tenant, *statements):
    """Returns the statements of a function in src/tasks/store/postgres/schema, as a transaction."""
    begin = ["BEGIN ISOLATION LEVEL READ COMMITTED", f"SET LOCAL app.tenant = '{tenant}'"]
    return "".join(f"{statement};\n" for statement in [*begin, *statements, "COMMIT"])


def pipelined(script):
    return f"\\startpipeline\n{script}\\endpipeline\n"


def list_transaction(tenant):
    return transaction(
        tenant,
        f"SELECT {COLUMNS} FROM tasks WHERE tenant_id = '{tenant}' AND user_id = '{USER}' AND id > 0 "
        "ORDER BY id LIMIT 11",
    )


def create_transaction(tenant):
    return transaction(
        tenant,
        f"INSERT INTO tenants AS t (tenant_id, last_task_id, task_count, max_tasks) VALUES ('{tenant}', 1, 1, "
        "2000000) ON CONFLICT (tenant_id) DO UPDATE SET last_task_id = t.last_task_id + 1, "
        "task_count = t.task_count + 1, max_tasks = excluded.max_tasks",
        "INSERT INTO tasks (tenant_id, id, user_id, owner_name, title, completed) SELECT tenant_id, last_task_id, "
        f"'{USER}', 'Edgar Editor', 'water the plants on floor 00000000000001', false FROM tenants "
        f"WHERE tenant_id = '{tenant}' RETURNING id",
    )


def speed(ready, server, replicas):
    tenant, token = ready["tenants"]["contoso"], ready["tokens"]["contoso/editor"]
    with RawConnection(replicas[0].port) as connection:
        for number in range(10):
            connection.send(create_request(token, number))
    rows = []
    for name, script, path, wrk_options, bounds in [
        ("GET of 10 tasks", list_transaction(tenant), "/api/tasks?limit=10", [], (1.3, 0.5)),
        ("POST", create_transaction(tenant), "/api/tasks", ["--script", LUA / "create.lua"], (0.6, None)),
    ]:
        wrk_options = [*wrk_options, *bearer(ready, "contoso/editor")]
        figures = {"pgbench": [], "pipelined": [], "one": [], "two": []}
        for _ in range(ROUNDS):
            figures["pgbench"].append(server.pgbench(script))
            figures["pipelined"].append(server.pgbench(pipelined(script)))
            figures["one"].append(run_load(replicas[:1], path, wrk_options))
            figures["two"].append(run_load(replicas, path, wrk_options))
        rows += [
            ratio(f"{name} ÷ pgbench", figures["one"], figures["pgbench"], bounds[0]),
            ratio(f"{name} ÷ pgbench, pipelined", figures["one"], figures["pipelined"], bounds[1]),
            ratio(f"{name}: two replicas ÷ one", figures["two"], figures["one"], None),
        ]
    keyed = {"without": [], "with": []}
    for _ in range(ROUNDS):
        for kind, header in [("without", "X-Unused"), ("with", "Idempotency-Key")]:
            options = ["--script", LUA / "create_with_header.lua", *bearer(ready, "contoso/editor")]
            keyed[kind].append(run_load(replicas[:1], "/api/tasks", options, [header]))
    rows.append(ratio("POST with an idempotency key ÷ without", keyed["with"], keyed["without"], 0.85))
    return rows


def ratio(name, ours, others, bound):
    by_round = [one / other for one, other in zip(ours, others, strict=True)]
    note = (
        f"{statistics.median(ours):,.0f} ÷ {statistics.median(others):,.0f} per second; "
        f"{min(by_round):.2f} to {max(by_round):.2f} in {len(by_round)} rounds"
    )
    return row(name, statistics.median(by_round), "×", bound, note, better="higher")


def run_load(replicas, path, wrk_options, arguments=()):
    """Returns the requests per second of all replicas together. The replicas share the HTTP connections evenly."""
    connections = HTTP_CONNECTIONS // len(replicas)
    options = ["--threads", "1", "--connections", connections, "--duration", f"{SECONDS}s", *wrk_options]

    def load(replica):
        url = f"http://127.0.0.1:{replica.port}{path}"
        return requests_per_second(run_wrk([*options, url, "--", *arguments]))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return sum(pool.map(load, replicas))


# Growth


def growth(ready, server):
    """Sends one request after another at each size, smallest first.

    In the largest size, all additional tasks belong to the caller's tenant.
    """
    server.sql("TRUNCATE tasks, tenants")
    tenant = ready["tenants"]["contoso"]
    seconds = {}
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Replica(ready, server))
        connection = stack.enter_context(RawConnection(service.port))
        present_tasks, present_tenants = 0, 0
        for tasks, tenants in SIZES:
            if tenants > present_tenants:
                insert_tenants(server, tenant, present_tenants, tenants)
            else:
                insert_tasks(server, tenant, tasks - present_tasks)
            present_tasks, present_tenants = tasks, tenants
            server.sql("VACUUM (ANALYZE) tasks, tenants")
            seconds[tasks, tenants] = time_requests(ready, connection)
    rows, smallest = [], seconds[SIZES[0]]
    for tasks, tenants in SIZES[1:]:
        additional = tasks - tenants * TASKS_PER_TENANT
        own = f", {(additional + TASKS_PER_TENANT) / tasks:.0%} in the caller's" if additional > 0 else ""
        for operation, figures in seconds[tasks, tenants].items():
            median, median_of_smallest = statistics.median(figures), statistics.median(smallest[operation])
            note = f"{median * 1e6:.0f} ÷ {median_of_smallest * 1e6:.0f} µs"
            name = f"{operation} at {tasks:,} tasks in {tenants:,} tenants{own} ÷ at {SIZES[0][0]} in one"
            rows.append(row(name, median / median_of_smallest, "×", None, note))
    return rows


def insert_tenants(server, contoso, first, end):
    """Inserts tenants with the numbers from `first` to `end` - 1 and 100 tasks each. Number 0 is contoso."""
    tenant_id = f"CASE number WHEN 0 THEN '{contoso}' ELSE md5(number::text) END::uuid"
    numbers = f"generate_series({first}, {end - 1}) AS number"
    count = TASKS_PER_TENANT
    server.sql(
        f"INSERT INTO tenants SELECT {tenant_id}, {count}, {count}, 2000000 FROM {numbers}",
        f"INSERT INTO tasks SELECT {tenant_id}, id, '{USER}', false, 'Edgar Editor', "
        f"'water the plants on floor ' || id FROM {numbers}, generate_series(1, {count}) AS id",
    )


def insert_tasks(server, tenant, count):
    server.sql(
        f"INSERT INTO tasks SELECT '{tenant}', last_task_id + number, '{USER}', false, 'Edgar Editor', 'more' "
        f"FROM tenants, generate_series(1, {count}) AS number WHERE tenant_id = '{tenant}'",
        f"UPDATE tenants SET last_task_id = last_task_id + {count}, task_count = task_count + {count} "
        f"WHERE tenant_id = '{tenant}'",
    )


def time_requests(ready, connection):
    """Returns the seconds of each request by operation. Each created task is deleted, so that the size is stable."""
    token = ready["tokens"]["contoso/admin"]
    seconds = {"GET of 10 tasks": [], "POST": [], "PATCH": [], "DELETE": []}

    def timed(operation, request):
        started = time.perf_counter()
        body = connection.send(request)
        seconds[operation].append(time.perf_counter() - started)
        return body

    for number in range(GROWTH_REQUESTS):
        timed("GET of 10 tasks", http_request("GET", "/api/tasks?limit=10", token))
        task = json.loads(timed("POST", create_request(token, number)))["id"]
        path = f"/api/tasks/{task}"
        timed("PATCH", http_request("PATCH", path, token, b'{"completed":true}'))
        timed("DELETE", http_request("DELETE", path, token))
    return seconds


if __name__ == "__main__":
    main()

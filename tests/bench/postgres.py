#!/usr/bin/env python3
"""Tasks in PostgreSQL: what the service makes of its server, what a second replica adds, and how it grows.

    python3 tests/bench/postgres.py READY_JSON

The server is a throw-away cluster with PostgreSQL's own settings, which wait for the disk at each commit. What is
compared takes turns, round by round; a ratio is made of figures of the same round, and the median counts. Nothing
is pinned: client, service and server share the machine, as pgbench and the server do.

pgbench runs the very statements the service sends, on as many connections: one after the other, as it usually does,
and all of a transaction at once, as the service does. Neither has a request to read, a caller to know or an answer
to write.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import limits  # noqa: E402 - beside this file

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 10
USER = "11111111-1111-4111-8111-000000000002"  # contoso's editor, as the stand-in for Entra knows them
REQUESTS = 400
COLUMNS = "id, user_id, owner_name, title, completed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ready", type=pathlib.Path, metavar="READY_JSON")
    arguments = parser.parse_args()
    limits.print_table(measure(json.loads(arguments.ready.read_text())))


def measure(ready, rounds=ROUNDS, sizes=((100, 1), (10_000, 100), (1_000_000, 10_000), (2_000_000, 10_000))):
    rows = []
    with Server() as server:
        with Replica(ready, server) as one, Replica(ready, server) as two:
            rows += speed(ready, server, [one, two], rounds)
        rows += growth(ready, server, sizes)
    return rows


class Replica(limits.Service):
    def __init__(self, ready, server):
        super().__init__(ready)
        self.settings |= {"DATABASE_URL": server.url, "MAX_DATABASE_CONNECTIONS": str(CONNECTIONS)}


class Server:
    """A throw-away cluster in a folder of its own, reached by its socket; not as root, whom PostgreSQL refuses."""

    def __enter__(self):
        self.programs = programs()
        self.folder = tempfile.TemporaryDirectory(prefix="postgres-")
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.user:
            shutil.chown(self.folder.name, "postgres", "postgres")
        data = f"{self.folder.name}/data"
        self.run("initdb", "--pgdata", data, "--auth", "trust", "--username", "postgres")
        settings = f"-c listen_addresses= -c unix_socket_directories={self.folder.name}"
        self.run("pg_ctl", "start", "--wait", "--pgdata", data, "--options", settings, "--log", f"{data}/log")
        self.sql("CREATE ROLE tasks LOGIN", "CREATE DATABASE tasks OWNER tasks", database="postgres")
        self.url = f"postgres://tasks@/tasks?host={self.folder.name}"
        return self

    def __exit__(self, *_):
        self.run("pg_ctl", "stop", "--mode", "fast", "--pgdata", f"{self.folder.name}/data")
        self.folder.cleanup()

    def run(self, program, *arguments):
        command = [*self.user, self.programs / program, *arguments]
        finished = subprocess.run(command, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if finished.returncode != 0:
            sys.exit(f"postgres: {program} failed:\n{finished.stdout}")
        return finished.stdout

    def sql(self, *statements, database="tasks"):
        options = [option for statement in statements for option in ("--command", statement)]
        return self.run("psql", "--host", self.folder.name, "--username", "postgres", "-qtA", *options, database)

    def pgbench(self, script, seconds):
        """Transactions per second."""
        path = pathlib.Path(self.folder.name) / "script.sql"
        path.write_text(script)
        options = f"--no-vacuum --protocol prepared --client {CONNECTIONS} --jobs 1 --time {seconds} --username tasks"
        output = self.run("pgbench", "--host", self.folder.name, *options.split(), "--file", path, "tasks")
        if "number of failed transactions: 0 " not in output:
            sys.exit(f"postgres: pgbench failed transactions:\n{output}")
        return float(re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)[1])


def programs():
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if not versions:
        sys.exit("postgres: no PostgreSQL server under /usr/lib/postgresql")
    return versions[-1]


# Speed


def transaction(tenant, *statements):
    """What src/tasks/postgres/mod.rs sends for one request."""
    begin = ["BEGIN ISOLATION LEVEL READ COMMITTED", f"SET LOCAL app.tenant = '{tenant}'"]
    return "".join(f"{statement};\n" for statement in [*begin, *statements, "COMMIT"])


def at_once(script):
    return f"\\startpipeline\n{script}\\endpipeline\n"


def speed(ready, server, replicas, rounds):
    tenant, token = ready["tenants"]["contoso"], ready["tokens"]["contoso/editor"]
    with limits.Connection(replicas[0].port) as connection:
        for number in range(10):
            connection.ask(limits.create_task(token, number))
    scripts = {
        "GET of 10 tasks": transaction(
            tenant,
            f"SELECT {COLUMNS} FROM tasks WHERE tenant_id = '{tenant}' AND user_id = '{USER}' AND id > 0 "
            "ORDER BY id LIMIT 11",
        ),
        "POST": transaction(
            tenant,
            f"INSERT INTO tenants AS t (tenant_id, last_task_id, task_count, max_tasks) VALUES ('{tenant}', 1, 1, "
            "2000000) ON CONFLICT (tenant_id) DO UPDATE SET last_task_id = t.last_task_id + 1, "
            "task_count = t.task_count + 1, max_tasks = excluded.max_tasks",
            "INSERT INTO tasks (tenant_id, id, user_id, owner_name, title, completed) SELECT tenant_id, last_task_id, "
            f"'{USER}', 'Edgar Editor', 'water the plants on floor 00000000000001', false FROM tenants "
            f"WHERE tenant_id = '{tenant}' RETURNING id",
        ),
    }
    requests = {"GET of 10 tasks": ("GET", "/api/tasks?limit=10", None), "POST": ("POST", "/api/tasks", "x" * 40)}
    rows = []
    for name, script in scripts.items():
        figures = {"pgbench": [], "at once": [], "one": [], "two": []}
        for _ in range(rounds):
            figures["pgbench"].append(server.pgbench(script, SECONDS))
            figures["at once"].append(server.pgbench(at_once(script), SECONDS))
            figures["one"].append(wrk(ready, replicas[:1], *requests[name]))
            figures["two"].append(wrk(ready, replicas, *requests[name]))
        rows += [
            ratio(f"{name} ÷ pgbench", figures, "one", "pgbench", 0.6),
            ratio(f"{name} ÷ pgbench, all of a transaction at once", figures, "one", "at once", None),
            ratio(f"{name}: two replicas ÷ one", figures, "two", "one", None),
        ]
    return rows


def ratio(name, figures, one, other, bound):
    by_round = [a / b for a, b in zip(figures[one], figures[other], strict=True)]
    note = (
        f"{statistics.median(figures[one]):,.0f} ÷ {statistics.median(figures[other]):,.0f} a second; "
        f"{min(by_round):.2f} to {max(by_round):.2f} in {len(by_round)} rounds"
    )
    return {**limits.row(name, statistics.median(by_round), "×", bound, note), "better": "higher"}


def wrk(ready, replicas, method, path, title):
    """Requests per second of all replicas together, on 32 connections altogether."""
    rates, errors = [], []

    def load(replica):
        script = ["--header", f"Authorization: Bearer {ready['tokens']['contoso/editor']}"]
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
            if title:
                lua.write(f"wrk.method, wrk.body = '{method}', '{{\"title\":\"{title}\"}}'\n")
                lua.write("wrk.headers['Content-Type'] = 'application/json'\n")
            lua.flush()
            connections = str(32 // len(replicas))
            command = ["wrk", "--threads", "1", "--connections", connections, "--duration", f"{SECONDS}s"]
            url = f"http://127.0.0.1:{replica.port}{path}"
            output = subprocess.run([*command, *script, "--script", lua.name, url], capture_output=True, text=True)
        rate = re.search(r"Requests/sec: +([\d.]+)", output.stdout)
        if output.returncode != 0 or not rate or re.search("Non-2xx|Socket errors", output.stdout):
            errors.append(output.stdout + output.stderr)
        else:
            rates.append(float(rate[1]))

    threads = [threading.Thread(target=load, args=(replica,)) for replica in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        sys.exit(f"postgres: requests failed:\n{errors[0]}")
    return sum(rates)


# Growth


def growth(ready, server, sizes):
    """One request after the other at each size, fewest first: tasks of all tenants, and how many tenants there are.

    The last one has all its new tasks in the tenant that asks.
    """
    server.sql("TRUNCATE tasks, tenants")
    tenant = ready["tenants"]["contoso"]
    seconds, before = {}, 0
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Replica(ready, server))
        connection = stack.enter_context(limits.Connection(service.port))
        present = 0
        for tasks, tenants in sizes:
            if tenants > before:
                seed(server, tenant, before, tenants, 100)
            else:
                more(server, tenant, tasks - present)
            before, present = tenants, tasks
            server.sql("VACUUM (ANALYZE) tasks, tenants")
            seconds[tasks, tenants] = burst(ready, connection)
    rows, least = [], seconds[sizes[0]]
    for size in sizes[1:]:
        for operation, figures in seconds[size].items():
            value = statistics.median(figures) / statistics.median(least[operation])
            note = f"{statistics.median(figures) * 1e6:.0f} ÷ {statistics.median(least[operation]) * 1e6:.0f} µs"
            whose = "" if size[0] <= size[1] * 100 else f", {size[0] - size[1] * 100 + 100:,} of them the caller's"
            name = f"{operation} at {size[0]:,} tasks of {size[1]:,} tenants{whose} ÷ at {sizes[0][0]} of one"
            rows.append(limits.row(name, value, "×", None, note))
    return rows


def seed(server, tenant, first, end, each):
    """So many tasks for each tenant from `first` on; the first of all is contoso."""
    tid = f"CASE number WHEN 0 THEN '{tenant}' ELSE md5(number::text) END::uuid"
    numbers = f"generate_series({first}, {end - 1}) AS number"
    server.sql(
        f"INSERT INTO tenants SELECT {tid}, {each}, {each}, 2000000 FROM {numbers}",
        f"INSERT INTO tasks SELECT {tid}, id, '{USER}', false, 'Edgar Editor', 'water the plants on floor ' || id "
        f"FROM {numbers}, generate_series(1, {each}) AS id",
    )


def more(server, tenant, count):
    server.sql(
        f"INSERT INTO tasks SELECT '{tenant}', last_task_id + number, '{USER}', false, 'Edgar Editor', 'more' "
        f"FROM tenants, generate_series(1, {count}) AS number WHERE tenant_id = '{tenant}'",
        f"UPDATE tenants SET last_task_id = last_task_id + {count}, task_count = task_count + {count} "
        f"WHERE tenant_id = '{tenant}'",
    )


def burst(ready, connection):
    """Seconds of each request; what is deleted was created just before, so that the size stays what it is."""
    token = ready["tokens"]["contoso/admin"]
    seconds = {"GET of 10 tasks": [], "POST": [], "PATCH": [], "DELETE": []}

    def timed(operation, message):
        begun = time.perf_counter()
        answer = connection.ask(message)
        seconds[operation].append(time.perf_counter() - begun)
        return answer

    for number in range(REQUESTS):
        timed("GET of 10 tasks", limits.request("GET", "/api/tasks?limit=10", token))
        task = json.loads(timed("POST", limits.create_task(token, number)))["id"]
        path = f"/api/tasks/{task}"
        timed("PATCH", limits.request("PATCH", path, token, b'{"completed":true}'))
        timed("DELETE", limits.request("DELETE", path, token))
    return seconds


if __name__ == "__main__":
    main()

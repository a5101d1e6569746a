"""Starts the mock Entra and the contestants, creates their tasks and compares their responses."""

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

from . import plan
from .machine import Failed, child_processes, cores, free_port, on_core, processor_seconds, wait_until
from .paths import CONTESTANTS, INSTALLED, MOCK_ENTRA, SERVICE


@dataclasses.dataclass
class Contestant:
    name: str
    address: str
    process: subprocess.Popen

    def processor_seconds(self):
        """Returns the processor time of its process and its worker processes."""
        pids = [self.process.pid, *child_processes(self.process.pid)]
        return sum(processor_seconds(pid) for pid in pids)


@contextlib.contextmanager
def mock_entra(folder, options):
    """Runs the example `bench`, which is the mock Entra and both floors, and yields its ready.json.

    The example signs all tokens before it is ready.
    """
    print("signing tokens", file=sys.stderr)
    command = [MOCK_ENTRA, folder, options.rounds, options.new_tokens_per_round]
    file = folder / "ready.json"
    with server(command, folder) as process:
        wait_until(file.exists, process, 600, "mock Entra")
        yield json.loads(file.read_text()) | {"process": process}


@contextlib.contextmanager
def started_contestants(ready, folder, options):
    """Starts the contestants of all selected loads and yields them by name. Each is ready and has its tasks."""
    wanted = {name for load in options.loads for name in plan.CONTESTANTS[load]}
    contestants = {plan.FLOOR: Contestant(plan.FLOOR, ready["floor"], ready["process"])}
    if plan.SIGNED_FLOOR in wanted:
        contestants[plan.SIGNED_FLOOR] = Contestant(plan.SIGNED_FLOOR, ready["floor_rsa"], ready["process"])
    with contextlib.ExitStack() as stack:
        for name in plan.NAMES:
            if name in wanted and name not in contestants:
                port = free_port()
                process = stack.enter_context(server(*start_parameters(name, port, ready, folder)))
                contestants[name] = Contestant(name, f"http://127.0.0.1:{port}", process)
        for contestant in contestants.values():
            wait_for_keys(contestant, ready)
            lists_big = "big" in options.loads and contestant.name in plan.CONTESTANTS["big"]
            create_tasks(contestant, ready, options.big_list_tasks if lists_big else 0)
        compare_responses(contestants.values(), ready)
        yield contestants


def start_parameters(name, port, ready, folder):
    """Returns command, working directory and settings."""
    settings = {"PORT": str(port), "ALLOWED_TENANT_IDS": ",".join(ready["tenants"].values())}
    if name == plan.OURS:
        settings |= {"AZURE_API_CLIENT_ID": ready["client_id"], "AZURE_AUTHORITY_HOST": ready["entra"]}
        return [SERVICE], tempfile.mkdtemp(dir=folder), settings
    settings |= {"CLIENT_ID": ready["client_id"], "AUTHORITY": ready["entra"]}
    match name:
        case plan.NODE:
            return ["node", "server.mjs"], INSTALLED / "node", settings
        case plan.RUST:
            return [INSTALLED / "rust" / "release" / "rust-contestant"], folder, settings
        case plan.FASTAPI_PORT | plan.FASTAPI_PORT_TWO_WORKERS:
            workers = "1" if name == plan.FASTAPI_PORT else "2"
            command = [INSTALLED / "venv" / "bin" / "uvicorn", "main:app", "--port", str(port), "--workers", workers]
            command += ["--no-access-log", "--log-level", "warning"]
            return command, CONTESTANTS / "original", settings | {"PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def server(command, cwd, settings=None):
    """Runs a server on the server core, in a new process group, and stops it at the end of the block."""
    process = subprocess.Popen(
        on_core(cores().server, command),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **(settings or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # receives a line per request; a file or a terminal would cost more
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_keys(contestant, ready):
    """Waits until the contestant accepts tokens of both tenants."""
    for path, user in [
        ("/health", "contoso/editor"),
        ("/api/tasks", "contoso/editor"),
        ("/api/tasks", "fabrikam/admin"),
    ]:
        condition = functools.partial(responds, contestant.address + path, ready["tokens"][user])
        wait_until(condition, contestant.process, 30, f"{plan.NAMES[contestant.name]}, {path} as {user}")


def responds(url, token):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        return urllib.request.urlopen(request, timeout=5).status == 200
    except OSError:
        return False


def create_tasks(contestant, ready, big_list_tasks):
    """Creates the tasks of contoso's editor, then those of the big list, which belong to fabrikam's admin.

    The editor's tasks come first so that they have the same ids everywhere.
    """
    for connection in connections_to_all_workers(contestant, ready):
        for user, count in [("contoso/editor", plan.TASKS), ("fabrikam/admin", big_list_tasks)]:
            for number in range(count):
                body = {"title": f"Write the minutes of meeting number {number:04}"}
                connection.send("POST", "/api/tasks", ready["tokens"][user], body)


def compare_responses(contestants, ready):
    """Fails unless all contestants return the same tasks. Otherwise their figures are not comparable."""
    expected = None
    for contestant in contestants:
        for connection in connections_to_all_workers(contestant, ready):
            tasks = json.loads(connection.send("GET", "/api/tasks", ready["tokens"]["contoso/editor"]))
            expected = expected or tasks
            if tasks != expected or len(tasks) != plan.TASKS:
                raise Failed(f"{plan.NAMES[contestant.name]} and the floor return different tasks: {tasks}")


class JsonConnection:
    """A keep-alive connection to a contestant. Fails on any status but 200."""

    def __init__(self, address):
        self.address = address
        self.http = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=30)

    def send(self, method, path, token, body=None):
        headers = {"Authorization": f"Bearer {token}"} | ({"Content-Type": "application/json"} if body else {})
        self.http.request(method, path, json.dumps(body) if body else None, headers)
        response = self.http.getresponse()
        text = response.read()
        if response.status != 200:
            raise Failed(f"{method} {self.address}{path} returned {response.status}: {text[:200].decode()}")
        return text

    def close(self):
        self.http.close()


def connections_to_all_workers(contestant, ready):
    """Yields a connection to each worker process, because each worker stores its tasks separately.

    The kernel selects the worker that accepts a connection. All other workers are therefore stopped meanwhile.
    """
    workers = child_processes(contestant.process.pid, "spawn_main") or [contestant.process.pid]
    for worker in workers:
        others = [other for other in workers if other != worker]
        connection = JsonConnection(contestant.address)
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            connection.send("GET", "/health", ready["tokens"]["contoso/editor"])
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
        yield connection
        connection.close()

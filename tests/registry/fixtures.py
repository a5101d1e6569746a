"""The processes that the tests of the registry start, and the clients that watch them."""

import base64
import collections
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
import typing
import urllib.error
import urllib.request

from bench.machine import Failed
from support.cluster import Cluster

from .report import Report

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"
SERVICE = pathlib.Path(os.environ.get("TENANT_TASKS_BIN", TARGET / "tenant-tasks")).resolve()
SANDBOX = pathlib.Path(os.environ.get("SANDBOX_BIN", TARGET / "examples" / "sandbox")).resolve()
TIMEOUT_SECONDS = 20
# The role of the service, its password, and the database of most parts.
NAME = "tenant_tasks"
# Between two requests of a client that watches a replica.
WATCH_PAUSE_SECONDS = 0.02

Answer = collections.namedtuple("Answer", "at status")
Finished = collections.namedtuple("Finished", "exited seconds")


class Entra:
    """The mock Entra of the sandbox. The tenant fabrikam is on the allow-list of the replicas' settings."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        port = free_port()
        settings = {"PORT": str(free_port()), "ENTRA_PORT": str(port)}
        self.url = f"http://127.0.0.1:{port}"
        self.context = start([SANDBOX], new_folder(self.folder), lambda: listens(port), settings)
        self.context.__enter__()
        return self

    def __exit__(self, *exception):
        self.context.__exit__(*exception)

    def token(self, tenant, user="editor"):
        return fetch(f"{self.url}/token/{tenant}/{user}")[1]

    def tenant_id(self, tenant):
        return decode_part(self.token(tenant), 1)["tid"]

    def key_id(self, tenant):
        return decode_part(self.token(tenant), 0)["kid"]

    def settings(self):
        claims = decode_part(self.token("fabrikam"), 1)
        return {
            "AZURE_API_CLIENT_ID": claims["aud"].removeprefix("api://"),
            "AZURE_AUTHORITY_HOST": self.url,
            "ALLOWED_TENANT_IDS": claims["tid"],
            "RUST_LOG": "warn",
        }


class Setup(typing.NamedTuple):
    """What every part of the tests uses."""

    folder: pathlib.Path
    entra: Entra
    report: Report
    rounds: int
    tasks: int


class Database(Cluster):
    """A temporary cluster. Its superuser is postgres."""

    def url(self, name=NAME, port=None):
        return f"postgres://{NAME}:{NAME}@127.0.0.1:{port or self.port}/{name}"

    def client(self, program):
        """Returns the command of a client program, without the name of the database."""
        return [self.programs / program, "--host", "127.0.0.1", "--port", str(self.port), "--username", "postgres"]

    def sql(self, statement, name=NAME, seconds=TIMEOUT_SECONDS):
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", name, "--command", statement]
        command = [*self.client("psql"), *options]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        if finished.returncode != 0:
            raise Failed(f"psql failed:\n{finished.stderr}")
        return finished.stdout.strip()

    def crash(self):
        """Stops the server at once, without closing connections and without a checkpoint."""
        self.run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", f"{self.folder}/data")

    def recover(self):
        """Starts the server again. `restart` repeats the options of the first start."""
        data = f"{self.folder}/data"
        self.run("pg_ctl", "restart", "--wait", "--pgdata", data, "--log", f"{data}/log")


@contextlib.contextmanager
def start_database(*names):
    with Database(free_port(), ["max_connections=200"]) as database:
        database.sql(f"CREATE ROLE {NAME} LOGIN PASSWORD '{NAME}'", "postgres")
        for name in names or [NAME]:
            database.sql(f"CREATE DATABASE {name} OWNER {NAME}", "postgres")
        yield database


class Replica:
    """A replica of the service. Its environment contains only its settings."""

    def __init__(self, setup, url, probe="/ready", pause=0.02):
        self.port = free_port()
        self.folder, self.probe, self.pause = new_folder(setup.folder), probe, pause
        self.settings = setup.entra.settings() | {"DATABASE_URL": url, "PORT": str(self.port)}

    def __enter__(self):
        started = time.perf_counter()
        self.context = start([SERVICE], self.folder, self.is_ready, self.settings, self.pause)
        self.process = self.context.__enter__()
        self.start_seconds = time.perf_counter() - started
        return self

    def __exit__(self, *exception):
        self.context.__exit__(*exception)

    def is_ready(self):
        return listens(self.port) and fetch(self.url(self.probe))[0] == 200

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"


class Registry:
    """Runs commands in an empty folder. Their environment contains only DATABASE_URL and PATH."""

    def __init__(self, setup, url):
        self.folder = new_folder(setup.folder)
        self.environment = {"DATABASE_URL": url, "PATH": os.environ["PATH"]}

    def run(self, *arguments, **options):
        """Runs a command that must succeed."""
        started = time.monotonic()
        finished = self.attempt(*arguments, **options)
        exited = time.monotonic()
        if finished.returncode != 0:
            command = " ".join(arguments)
            raise Failed(f"{command!r} exited with {finished.returncode}:\n{finished.stdout}")
        return Finished(exited, exited - started)

    def attempt(self, *arguments, text="", seconds=TIMEOUT_SECONDS):
        """Runs a command with a text as its standard input."""
        return subprocess.run(
            [SERVICE, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )

    def start(self, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        """Starts a command and does not wait for it."""
        command = [SERVICE, *arguments]
        streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, **streams)


class Watcher:
    """A client that repeats requests on one connection. It records when which status arrived.

    Of a request without a response, it records the error instead of the status.
    """

    def __init__(self, replica, token, paths=("/api/me",), pause=WATCH_PAUSE_SECONDS):
        self.port, self.paths, self.pause = replica.port, paths, pause
        self.headers = {"Authorization": f"Bearer {token}"}
        self.answers = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.repeat, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(TIMEOUT_SECONDS)

    def repeat(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        for path in itertools.cycle(self.paths):
            if self.stopped.wait(self.pause):
                break
            try:
                connection.request("GET", path, headers=self.headers)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException) as error:
                # The next request opens a new connection.
                connection.close()
                status = repr(error)
            self.answers.append(Answer(time.monotonic(), status))
        connection.close()


@contextlib.contextmanager
def start(command, folder, is_ready, settings=None, pause=0.02):
    """Runs a server while the context lasts. Writes its output to a file in the folder."""
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{command[0]} failed to start:\n{pathlib.Path(log.name).read_text()}")
            time.sleep(pause)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def migrate(setup, url):
    """Creates the tables: a replica applies the migrations at its start."""
    with Replica(setup, url):
        pass


def memory_megabytes(pid, field):
    """Returns a field of the process's status, such as VmRSS. Returns 0 if the process has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0


def decode_part(token, index):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[index] + "=="))


def fetch(url, token=None):
    """Returns the status and the body."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    """Below the range from which the system chooses the ports of clients, so that a server can restart on it."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", random.randrange(20000, 30000)))
            return listener.getsockname()[1]


def new_folder(parent):
    return pathlib.Path(tempfile.mkdtemp(dir=parent))

"""A temporary PostgreSQL cluster."""

import os
import pathlib
import shutil
import subprocess
import tempfile


class ClusterError(Exception):
    """A program of PostgreSQL is missing or failed."""


class Cluster:
    """A temporary cluster on a Unix socket, and on a loopback port if `port` is set.

    It does not run as root, because PostgreSQL does not start as root.
    """

    def __init__(self, port=None, settings=()):
        self.port = port
        self.settings = settings

    def __enter__(self):
        self.programs = newest_programs()
        self.temporary = tempfile.TemporaryDirectory(prefix="postgres-")
        self.folder = self.temporary.name
        self.run_as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        owned_by_postgres(self.folder)
        data = f"{self.folder}/data"
        self.run("initdb", "--pgdata", data, "--auth", "trust", "--username", "postgres")
        address = f"listen_addresses=127.0.0.1 -c port={self.port}" if self.port else "listen_addresses="
        settings = f"-c {address} -c unix_socket_directories={self.folder}"
        settings += "".join(f" -c {setting}" for setting in self.settings)
        self.run("pg_ctl", "start", "--wait", "--pgdata", data, "--options", settings, "--log", f"{data}/log")
        return self

    def __exit__(self, *_):
        self.run("pg_ctl", "stop", "--mode", "fast", "--pgdata", f"{self.folder}/data")
        self.temporary.cleanup()

    def run(self, program, *arguments):
        command = [*self.run_as, self.programs / program, *arguments]
        finished = subprocess.run(command, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if finished.returncode != 0:
            raise ClusterError(f"{program} failed:\n{finished.stdout}")
        return finished.stdout


def owned_by_postgres(*paths):
    """Gives files to the user that runs PostgreSQL, if this process is root."""
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "postgres", "postgres")


def newest_programs():
    if program := shutil.which("initdb"):
        return pathlib.Path(program).resolve().parent
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if not versions:
        raise ClusterError("no PostgreSQL server under /usr/lib/postgresql")
    return versions[-1]

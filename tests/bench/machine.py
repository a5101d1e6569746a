"""The machine that the benchmark runs on: cores, ports, processes and file limits."""

import contextlib
import functools
import itertools
import os
import pathlib
import resource
import socket
import sys
import time
import typing

from support.cluster import ClusterError

BUSY_SAMPLE_SECONDS = 0.5


class Failed(Exception):
    """The measurement is invalid, for example because a request failed."""


@contextlib.contextmanager
def exit_on_failure():
    try:
        yield
    except (Failed, ClusterError) as failure:
        sys.exit(f"bench: {failure}")


class Cores(typing.NamedTuple):
    server: int
    client: int


@functools.cache
def cores():
    """Returns the core that runs every server and the core that runs wrk."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise Failed("two cores are required, one for the server and one for wrk")
    return Cores(server=available[0], client=available[1])


def on_core(core, command):
    return ["taskset", "--cpu-list", str(core), *map(str, command)]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until(condition, process, seconds, what):
    for _ in range(seconds * 20):
        if process.poll() is not None:
            command = " ".join(map(str, process.args))
            raise Failed(f"{what}: the server exited with {process.returncode}: {command}")
        if condition():
            return
        time.sleep(0.05)
    raise Failed(f"{what}: not ready after {seconds} s")


def child_processes(pid, marker=""):
    """Returns the ids of the child processes whose command line contains the marker."""
    children = itertools.chain.from_iterable(
        path.read_text().split() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    )
    return [int(child) for child in children if marker in pathlib.Path(f"/proc/{child}/cmdline").read_text()]


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def busy_share():
    """Returns the share of processor time that is in use now, from 0 to 1."""
    samples = []
    for _ in range(2):
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, idle, waiting, *_ = map(int, fields)
        samples.append((user + nice + system, user + nice + system + idle + waiting))
        time.sleep(BUSY_SAMPLE_SECONDS)
    (busy, total), (busy_later, total_later) = samples
    return (busy_later - busy) / max(total_later - total, 1)


def raise_open_file_limit(connections):
    """Allows this process and its children to hold so many connections. The usual limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < connections + 100:
        raise Failed(f"the open file limit of {hard} is too low for {connections:,} connections")
    wanted = 4 * connections
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

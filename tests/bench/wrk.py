"""Runs wrk, the load generator."""

import re
import subprocess

from .machine import Failed, on_core


def run_wrk(arguments, core=None, timeout=None):
    """Returns what wrk prints. Fails if any request failed, because error responses are faster than others."""
    command = ["wrk", *map(str, arguments)]
    if core is not None:
        command = on_core(core, command)
    finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if finished.returncode != 0 or re.search(r"Non-2xx|Socket errors|wrong responses [1-9]", finished.stdout):
        raise Failed(f"requests failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def requests_per_second(output):
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    if not rate or float(rate[1]) == 0:
        raise Failed(f"wrk received no responses:\n{output}")
    return float(rate[1])


def bearer(ready, user):
    return ["--header", f"Authorization: Bearer {ready['tokens'][user]}"]

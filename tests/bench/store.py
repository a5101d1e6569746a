"""Measures the operations of the store in memory, without HTTP, with the example `bench_store`."""

import subprocess

from .machine import Failed, cores, on_core
from .paths import STORE
from .report import row


def measure(_ready):
    finished = subprocess.run(on_core(cores().server, [STORE]), capture_output=True, text=True)
    if finished.returncode != 0:
        raise Failed(f"bench_store failed: {finished.stderr}")
    head, *lines = (line.split() for line in finished.stdout.splitlines())
    rows = []
    for line in lines:
        size = dict(zip(head, line, strict=True))
        tasks, tenants, users = (int(size[name]) for name in ["tasks", "tenants", "users"])
        name = f"create with {tasks:,} tasks; {tenants:,} tenants with {users:,} users each"
        note = f"page {size['page']}, patch {size['patch']}, delete {size['delete']} µs"
        rows.append(row(name, float(size["create"]), "µs", None, note))
    return rows

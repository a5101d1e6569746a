"""Tests the registry of tenants and revoked keys with several replicas of the service, and measures it.

    tests/registry/run                                         all parts, about ten minutes
    tests/registry/run --only propagation --rounds 5           one part with fewer rounds
    tests/registry/run --only kill --only offboarding          two parts

propagation  Commands change the registry while three replicas run. Each replica must obey within 2 seconds, and no
             request of another tenant may fail.
pooler       The same through PgBouncer, in transaction mode and in statement mode.
cut          A replica loses its connections to the database for 10 seconds. It must keep its last list.
restart      The database crashes and starts again. Requests that need no tasks must still succeed.
kill         `tenants add` is killed at random moments. It must have changed everything or nothing.
offboarding  A tenant with many tasks is exported and erased. A dump must not contain its tasks.
many         The cost of 10,000 tenants: start, memory, processor time, queries and lists of tasks.

Prints the median and the worst of each figure. The exit code is 1 if a check fails. Needs Debian's packages pgbouncer
and postgresql. Builds the service and the sandbox unless TENANT_TASKS_BIN and SANDBOX_BIN name their binaries.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from .changes import cut, pooler, propagation, restart
from .commands import kill, offboarding
from .fixtures import ROOT, Entra, Setup
from .many import many
from .report import Report

PARTS = {part.__name__: part for part in [propagation, pooler, cut, restart, kill, offboarding, many]}


def main():
    options = parse_options()
    # So that the processes stop too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if "TENANT_TASKS_BIN" not in os.environ:
        command = ["cargo", "build", "--locked", "--quiet", "--bin", "tenant-tasks", "--example", "sandbox"]
        subprocess.run(command, cwd=ROOT, check=True)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="registry-") as name:
        folder = pathlib.Path(name)
        with Entra(folder) as entra:
            setup = Setup(folder, entra, report, options.rounds, options.tasks)
            for part in options.only or PARTS:
                print(f"registry: {part}", flush=True)
                try:
                    PARTS[part](setup)
                except Exception as error:
                    # The other parts still run.
                    report.problem(f"{part}: {type(error).__name__}: {error}")
    report.print()
    sys.exit(1 if report.problems else 0)


def parse_options():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tests/registry/run", description=__doc__, formatter_class=formatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="run this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the part propagation (%(default)s)")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="tasks of the part offboarding (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or options.tasks < 1:
        parser.error("--rounds and --tasks must be at least 1")
    return options


if __name__ == "__main__":
    main()

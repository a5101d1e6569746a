"""Measures tenant-tasks, the same responses without authentication, and other implementations side by side.

    tests/bench/run                      everything, with five rounds of three seconds: about 20 minutes
    tests/bench/run --only warm,many     some of the loads
    tests/bench/run --quick              one round of one second, to test the benchmark itself

A ratio divides figures of the same round. The median of the rounds is the result. A response that is not 200 ends
the run, because error responses are faster than others. Everything that is missing is installed into target/bench,
which also receives result.json: a run of some parts keeps the results of the others. A run of everything, or of some
parts with --publish, also replaces result.svg and the tables of src/docs/performance.md.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import signal
import sys
import tempfile

from . import limits, loads, observed, plan, postgres, report, store
from .install import install
from .machine import cores, exit_on_failure
from .paths import CHART, GUIDE, INSTALLED
from .servers import mock_entra, started_contestants

# Parts that measure tenant-tasks alone. Each returns rows of report.row.
SEPARATE_PARTS = {
    "limits": limits.measure,
    "store": store.measure,
    "postgres": postgres.measure,
    "observed": observed.measure,
}
ALL_PARTS = [*plan.LOADS, *SEPARATE_PARTS]


@dataclasses.dataclass(frozen=True)
class Options:
    parts: list[str]
    rounds: int
    seconds: int
    new_tokens_per_round: int
    big_list_tasks: int
    publish: bool

    @property
    def loads(self):
        return [load for load in plan.LOADS if load in self.parts]


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # leaves all `with` blocks and stops servers
    with exit_on_failure():
        cores()
        install(options.parts)
        measure(options)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"some of {','.join(ALL_PARTS)}", metavar="PART,…")
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 21), metavar="1..20")
    parser.add_argument("--seconds", type=int, default=3, choices=range(1, 61), metavar="1..60")
    parser.add_argument("--publish", action="store_true", help="replace the chart and the tables of the guide")
    parser.add_argument("--quick", action="store_true", help="one round of one second, loads only")
    arguments = parser.parse_args()
    parts = arguments.only.split(",") if arguments.only else ALL_PARTS
    if unknown := set(parts) - set(ALL_PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))} is not one of {', '.join(ALL_PARTS)}")
    if arguments.rounds * (arguments.seconds + 1) > 120:
        parser.error("the tokens would expire during the run")
    if arguments.quick:
        quick_loads = [part for part in parts if part in plan.LOADS]
        return Options(quick_loads, 1, 1, new_tokens_per_round=2000, big_list_tasks=500, publish=False)
    return Options(
        parts,
        arguments.rounds,
        arguments.seconds,
        new_tokens_per_round=plan.NEW_TOKENS_PER_ROUND,
        big_list_tasks=plan.BIG_LIST_TASKS,
        publish=arguments.publish or not arguments.only,
    )


def measure(options):
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ready = stack.enter_context(mock_entra(folder, options))
        result = {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "connections": plan.CONNECTIONS,
            "rsa_verify_seconds": ready["rsa_verify_seconds"],
        }
        if options.loads:
            with started_contestants(ready, folder, options) as contestants:
                result |= loads.measure(contestants, ready, options)
            result["ratios"] = report.ratios(result["rates"], ready["rsa_verify_seconds"])
            report.print_rates(result)
            report.print_ratios(result["ratios"])
            write(result, options)
        for name, measure_part in SEPARATE_PARTS.items():
            if name in options.parts:
                result[name] = measure_part(ready)
                report.print_rows(result[name])
                write(result, options)


def write(result, options):
    """Writes the results so far, because the remaining parts take minutes and may fail."""
    file = INSTALLED / "result.json"
    earlier = json.loads(file.read_text()) if file.exists() else {}
    for by_load in ["rates", "busy"]:
        if by_load in result:
            result[by_load] = earlier.get(by_load, {}) | result[by_load]
    result = earlier | result
    if "rates" in result:
        result["ratios"] = report.ratios(result["rates"], result["rsa_verify_seconds"])
    file.write_text(json.dumps(result, indent=1) + "\n")
    if options.publish and {"rates", *SEPARATE_PARTS} <= result.keys():
        CHART.write_text(report.chart(result))
        GUIDE.write_text(report.replace_tables(GUIDE.read_text(), result, list(SEPARATE_PARTS)))


if __name__ == "__main__":
    main()

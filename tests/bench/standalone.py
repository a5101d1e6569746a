"""Runs one part of the benchmark against a mock Entra that is already running.

target/release/examples/bench DIR 1 1                              serves until stopped, writes DIR/ready.json
PYTHONPATH=tests python3 -m bench.limits DIR/ready.json --only start
PYTHONPATH=tests python3 -m bench.postgres DIR/ready.json
PYTHONPATH=tests python3 -m bench.observed DIR/ready.json --rounds 5
"""

import argparse
import json
import pathlib

from .machine import exit_on_failure
from .report import print_rows


def part_parser(documentation):
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument(
        "ready", type=pathlib.Path, metavar="READY_JSON", help="written by target/release/examples/bench"
    )
    return parser


def run_part(measure, ready, *arguments):
    with exit_on_failure():
        print_rows(measure(json.loads(ready.read_text()), *arguments))

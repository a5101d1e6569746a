"""Folders and binaries of the benchmark."""

import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
SERVICE = TARGET / "release" / "tenant-tasks"
MOCK_ENTRA = TARGET / "release" / "examples" / "bench"
STORE = TARGET / "release" / "examples" / "bench_store"

CONTESTANTS = HERE / "contestants"
LUA = HERE / "lua"
OBSERVABILITY = HERE.parent / "observability"

# What install.py creates, and result.json.
INSTALLED = TARGET / "bench"
CHART = HERE / "result.svg"
GUIDE = ROOT / "src" / "docs" / "performance.md"

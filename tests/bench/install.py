"""Builds the servers and installs the tools and packages that they need."""

import contextlib
import hashlib
import pathlib
import shutil
import subprocess
import sys

from . import plan
from .machine import Failed
from .paths import CONTESTANTS, INSTALLED, ROOT

CARGO_BUILD = ["cargo", "build", "--locked", "--release"]


def install(parts):
    """Installs what the given parts of the benchmark need."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    # Two builds: in one, the dependencies of the examples would enable features for the service.
    run_tool([*CARGO_BUILD, "--bin", "tenant-tasks"])
    run_tool([*CARGO_BUILD, "--example", "bench", "--example", "bench_store"])
    install_system_packages(parts)
    if set(parts) & set(plan.LOADS):
        build_rust_contestant()
        install_fastapi_port()
        install_node_contestant()


def install_system_packages(parts):
    packages = {"wrk": "wrk", "node": "nodejs", "npm": "npm", "taskset": "util-linux"}
    if "postgres" in parts and not list(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench")):
        packages["pgbench"] = "postgresql"
    if "observed" in parts:
        packages["prometheus"] = "prometheus"
    if missing := [package for tool, package in packages.items() if not shutil.which(tool)]:
        run_tool(["apt-get", "update", "-qq"])
        run_tool(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])


def build_rust_contestant():
    manifest = CONTESTANTS / "rust" / "Cargo.toml"
    run_tool([*CARGO_BUILD, "--manifest-path", manifest, "--target-dir", INSTALLED / "rust"])


def install_fastapi_port():
    venv, requirements = INSTALLED / "venv", CONTESTANTS / "original" / "requirements.txt"
    with if_changed(venv, requirements) as changed:
        if changed:
            run_tool([sys.executable, "-m", "venv", "--clear", venv])
            run_tool([venv / "bin" / "pip", "install", "--quiet", "--requirement", requirements])


def install_node_contestant():
    folder, source = INSTALLED / "node", CONTESTANTS / "node"
    with if_changed(folder, source / "package-lock.json") as changed:
        if changed:
            folder.mkdir(exist_ok=True)
            for name in ["package.json", "package-lock.json"]:
                shutil.copy(source / name, folder)
            run_tool(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
    shutil.copy(source / "server.mjs", folder)


@contextlib.contextmanager
def if_changed(folder, source):
    """Yields whether the source has changed since the folder was last filled successfully."""
    mark, digest = folder / ".made-from", hashlib.sha256(source.read_bytes()).hexdigest()
    changed = not mark.exists() or mark.read_text() != digest
    yield changed
    if changed:
        mark.write_text(digest)


def run_tool(command, cwd=ROOT):
    if subprocess.run(command, cwd=cwd).returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed")

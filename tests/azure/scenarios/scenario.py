"""A tenant in the mock and a checkout with setup.sh and cleanup.sh."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile
import unicodedata

from .expected import SEED, TENANT, directory_after_setup, initial_directory, registrations, snapshot

MOCK = pathlib.Path(__file__).resolve().parents[1]
ROOT = MOCK.parents[1]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
TOOLS = TARGET / "azure-cli"
AZ = TOOLS / "venv" / "bin" / "az"


class Scenario:
    folders = []

    def __init__(self, seed=SEED):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="azure-", dir=TOOLS))
        self.folders.append(self.folder)
        self.checkout = self.folder / "checkout"
        self.checkout.mkdir()
        for script in ("setup.sh", "cleanup.sh"):
            shutil.copy(ROOT / script, self.checkout)
        shutil.copytree(ROOT / "src" / "setup", self.checkout / "src" / "setup")
        (self.folder / "tmp").mkdir()
        (self.folder / "seed.json").write_text(json.dumps(seed))
        self.env = self.checkout / ".env"
        self.output = ""

    def run(self, *command, login="user", options=(), faults=(), first_in_path=None, expect=0):
        """Runs a command in the checkout and asserts its exit code. The directory keeps the state of the last run."""
        arguments = [MOCK / "run_with_mock.sh", "--az", AZ, "--home", TOOLS / "home", "--login", login]
        arguments += ["--seed", self.folder / "seed.json", "--state", self.folder / "state.json"]
        arguments += ["--az-log", self.folder / "az.log"]
        for option in options:
            arguments += ["--set", option]
        for fault in faults:
            arguments += ["--fault", json.dumps(fault)]
        if first_in_path:
            command = ("bash", "-c", f'PATH={first_in_path}:$PATH exec "$@"', "bash", *command)
        environment = dict(
            os.environ,
            GRAPH_RETRY_SECONDS="0",
            TMPDIR=str(self.folder / "tmp"),
        )
        finished = subprocess.run(
            [*map(str, arguments), "--", *command],
            cwd=self.checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=240,
        )
        self.output = (finished.stdout + finished.stderr).decode()
        assert finished.returncode == expect, f"{command}: exit {finished.returncode}, not {expect}\n{self.output}"
        if {"./setup.sh", "./cleanup.sh"} & set(command):
            categories = {unicodedata.category(character) for character in self.output.replace("\n", "")}
            assert categories.isdisjoint({"Cc", "Cf", "Zl", "Zp"}), f"control characters in {self.output!r}"
        return self

    def assert_output(self, *texts):
        for text in texts:
            assert text in self.output, f"the output does not contain {text!r}:\n{self.output}"

    def state(self):
        return json.loads((self.folder / "state.json").read_text())

    def write_state(self, state):
        (self.folder / "state.json").write_text(json.dumps(state))

    def delete_application(self, mark, purge):
        """Deletes an application and its service principal as an administrator does, between two runs."""
        state = self.state()
        deleted = next(a for a in state["applications"] if a["uniqueName"] == f"tenant-tasks-setup.{mark}")
        for collection, kind in (("applications", "application"), ("servicePrincipals", "servicePrincipal")):
            gone = [item for item in state[collection] if item["appId"] == deleted["appId"]]
            state[collection] = [item for item in state[collection] if item not in gone]
            if not purge:
                state["deletedItems"] += [{"type": kind, **item} for item in gone]
        self.write_state(state)

    def writes(self):
        """The requests of the last run other than GET."""
        graph = [request for request in self.state()["requests"] if request["host"] == "graph.microsoft.com"]
        return [f"{request['method']} {request['path']}" for request in graph if request["method"] != "GET"]

    def assert_set_up(self, users=True):
        """Asserts the complete content of the directory and the settings in .env."""
        state = self.state()
        api, spa = registrations(state)
        expected = directory_after_setup(api["appId"], spa["appId"], users)
        assert snapshot(state) == expected, json.dumps(snapshot(state), indent=1)
        assert stat.S_IMODE(self.env.stat().st_mode) == 0o600
        for line in (
            f"AZURE_API_CLIENT_ID={api['appId']}",
            f"AZURE_SPA_CLIENT_ID={spa['appId']}",
            f"AZURE_HOME_TENANT_ID={TENANT}",
            f"ALLOWED_TENANT_IDS={TENANT}",
        ):
            assert line in self.env.read_text().splitlines(), self.env.read_text()
        return self

    def assert_passwords_printed(self):
        """Asserts that all passwords of test users were printed and that none was on a command line."""
        secrets = [secret["password"] for secret in self.state()["_secrets"].values()]
        assert len(secrets) == 3, secrets
        for password in secrets:
            assert password in self.output, "a password was not printed"
            assert password not in (self.folder / "az.log").read_text(), "a password was on a command line"
        return self

    def assert_cleaned_up(self):
        """Asserts that all objects of setup.sh are purged and that all others still exist."""
        state = self.state()
        assert snapshot(state) == initial_directory(), json.dumps(snapshot(state), indent=1)
        assert state["deletedItems"] == [], state["deletedItems"]
        return self

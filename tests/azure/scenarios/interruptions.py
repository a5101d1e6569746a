"""The scenarios of --all: each interrupts a script once, or fails one of its writes."""

import stat
from functools import partial

from .expected import WRITES
from .scenario import Scenario


def kill_after_write(number, script="./setup.sh"):
    """Kills the script with SIGKILL after its write of this number, then runs it again."""
    scenario = Scenario()
    if script != "./setup.sh":
        scenario.run("./setup.sh")
    wrapper_folder = scenario.folder / "bin"
    wrapper_folder.mkdir()
    (wrapper_folder / "az").write_text(f"""#!/usr/bin/env bash
        PATH=${{PATH#*:}} az "$@"; status=$?
        case "$*" in *"rest --method get"* | account*) exit "$status" ;; esac
        echo write >>{scenario.folder}/count
        [[ $(wc -l <{scenario.folder}/count) != {number} ]] || kill -9 "$(cat {scenario.folder}/pid)"
        exit "$status"
    """)
    (wrapper_folder / "az").chmod(0o755)
    killed = f"echo $$ >{scenario.folder}/pid; exec {script} $0"
    flag = "--yes" if script != "./setup.sh" else "tenant-tasks-api"
    scenario.run("bash", "-c", killed, flag, first_in_path=wrapper_folder, expect=137)
    assert len((scenario.folder / "count").read_text().splitlines()) == number
    for path in scenario.folder.glob("tmp/**/*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"other users can read {path}"
    if script == "./setup.sh":
        assert not scenario.env.exists(), ".env was written before the last write to Graph"
        scenario.run("./setup.sh").assert_set_up().assert_passwords_printed()
        scenario.run("./setup.sh")
        assert scenario.writes() == []
    else:
        scenario.run(script, "--yes").assert_cleaned_up()
        assert not scenario.env.exists()


def fault_on_write(method, nth, fault):
    scenario = Scenario()
    scenario.run("./setup.sh", options=("lag_reads=3",), faults=[{"method": method, "nth": nth, **fault}])
    scenario.assert_set_up().assert_passwords_printed()
    assert len(scenario.state()["injectedFaults"]) == 1


def scenarios():
    """The scenarios with their titles."""
    for number in range(1, len(WRITES) + 1):
        yield f"setup.sh killed after write {number}", partial(kill_after_write, number)
    for number in range(1, 13):
        yield f"cleanup.sh killed after write {number}", partial(kill_after_write, number, "./cleanup.sh")
    for title, fault in (
        ("429", {"status": 429, "retry_after": 1}),
        ("503 before the change", {"status": 503}),
        ("503 after the change", {"status": 503, "after": True}),
    ):
        for method, nth in WRITES:
            yield f"{title} on {method} {nth}", partial(fault_on_write, method, nth, fault)

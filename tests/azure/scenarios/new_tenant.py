"""Scenarios in a tenant where setup.sh never ran."""

from .expected import SEED, WRITES, registrations
from .scenario import Scenario


def setup_and_cleanup_in_new_tenant():
    scenario = Scenario()
    scenario.run("./setup.sh", "--dry-run").assert_output(
        "would register the API tenant-tasks-api", "would write to .env"
    )
    assert scenario.writes() == [] and not scenario.env.exists()

    scenario.run("./setup.sh").assert_set_up().assert_passwords_printed()
    assert len(scenario.writes()) == len(WRITES), scenario.writes()
    text, passwords = scenario.env.read_text(), scenario.state()["_secrets"]

    scenario.run("./setup.sh").assert_set_up()
    assert scenario.writes() == [], scenario.writes()
    assert scenario.env.read_text() == text and scenario.state()["_secrets"] == passwords
    scenario.run("./setup.sh", "--dry-run").assert_output("up to date: the API tenant-tasks-api")
    assert "would create" not in scenario.output and scenario.env.read_text() == text

    scenario.run("./cleanup.sh", expect=1).assert_output("will be deleted permanently", "Add --yes")
    scenario.run("./cleanup.sh", "--dry-run").assert_output("would delete the registration tenant-tasks-api")
    assert scenario.writes() == [] and scenario.assert_set_up()
    scenario.run("./cleanup.sh", "--yes").assert_cleaned_up()
    assert not scenario.env.exists()
    scenario.run("./cleanup.sh", "--yes", expect=1).assert_cleaned_up().assert_output(".env has no lines from setup.sh")
    scenario.run("./cleanup.sh", "--yes", "tenant-tasks-api").assert_output("Nothing to delete")
    assert scenario.writes() == []


def lagging_replicas_and_small_pages():
    scenario = Scenario()
    slow = ("lag_reads=3", "stale_reads=2", "page_size=2", "delete_lag_reads=2", "duplicate_assignment=entitlement")
    scenario.run("./setup.sh", options=slow).assert_set_up().assert_passwords_printed()
    scenario.run("./setup.sh", options=("page_size=1",))
    assert scenario.writes() == [], "an assignment on a later page was not found"

    # The role is created again. Until the replicas have it, its assignment is rejected.
    state = scenario.state()
    registrations(state)[0]["appRoles"].pop()
    state["appRoleAssignments"].pop()
    scenario.write_state(state)
    faults = [{"method": "POST", "path": "/appRoleAssignedTo$", "status": 503, "after": True}]
    scenario.run("./setup.sh", options=slow, faults=faults).assert_set_up()
    assert len(scenario.state()["injectedFaults"]) == 1

    faults = [{"method": "DELETE", "path": "/users/", "status": 503, "after": True}]
    scenario.run("./cleanup.sh", "--yes", options=slow, faults=faults).assert_cleaned_up()


def failed_requests_are_retried():
    scenario = Scenario()
    faults = [
        {"method": "GET", "path": "/organization", "status": 429, "retry_after": 1},
        {"method": "PATCH", "path": "/applications", "nth": 1, "status": 503, "after": True},
        {"method": "PATCH", "path": "/applications", "nth": 4, "status": 503, "html": True},
        {"method": "POST", "path": "/servicePrincipals$", "nth": 1, "status": 504, "after": True},
        {"method": "POST", "path": "/users$", "nth": 1, "drop": True},
        {"method": "POST", "path": "/users$", "nth": 3, "status": 500, "after": True},
        {"method": "POST", "path": "/appRoleAssignedTo$", "nth": 2, "status": 503, "after": True},
    ]
    scenario.run("./setup.sh", options=("lag_pattern=0101",), faults=faults).assert_set_up().assert_passwords_printed()
    assert len(scenario.state()["injectedFaults"]) == len(faults), scenario.state()["injectedFaults"]
    faults = [
        {"method": "DELETE", "path": "/users/", "nth": 1, "status": 503, "after": True},
        {"method": "DELETE", "path": "/applications/", "nth": 1, "status": 429},
        {"method": "DELETE", "path": "/applications/", "nth": 2, "status": 503, "after": True},
        {"method": "DELETE", "path": "/deletedItems/", "nth": 2, "drop": True},
        {"method": "DELETE", "path": "/deletedItems/", "nth": 5, "status": 503, "after": True},
    ]
    scenario.run("./cleanup.sh", "--yes", faults=faults).assert_cleaned_up()
    assert len(scenario.state()["injectedFaults"]) == len(faults), scenario.state()["injectedFaults"]


def missing_prerequisites_fail_before_any_write():
    scenario = Scenario()
    advice = "az login --allow-no-subscriptions"
    scenario.run("./setup.sh", login="none", expect=1).assert_output("not signed in", advice)
    scenario.run("./setup.sh", login="expired", expect=1).assert_output("no longer valid", advice)
    scenario.run("./setup.sh", options=("privileges=reader",), expect=1).assert_output(
        "does not have permission", "Nothing was changed"
    )
    without_az = "PATH=/usr/bin:/bin exec ./setup.sh"
    scenario.run("bash", "-c", without_az, expect=1).assert_output("(az) is not installed")
    scenario.run("./setup.sh", "a name with spaces", expect=1).assert_output("is not a valid name")
    scenario.run("./setup.sh", "--unknown", expect=2).assert_output("usage:")
    scenario.run("./setup.sh", "--help").assert_output("usage:")
    scenario.assert_cleaned_up()
    assert not scenario.env.exists()

    # The mock does not implement these two paths. The name of the account contains an escape sequence.
    wrapper_folder = scenario.folder / "bin"
    wrapper_folder.mkdir()
    fake = """#!/usr/bin/env bash
        case "$*" in
          account*) PATH=${PATH#*:} az "$@" | sed 's/"name": "admin/&\\\\u001b[31m/' ;;
          *transitiveMemberOf*) echo '{"value":[]}' ;;
          *authorizationPolicy*) echo '{"defaultUserRolePermissions":{"allowedToCreateApps":ALLOWED}}' ;;
          *) PATH=${PATH#*:} exec az "$@" ;;
        esac
    """
    for allowed, message in (
        ("false", "is not allowed to register apps"),
        ("true", "not to create users. Add --no-test-users"),
    ):
        (wrapper_folder / "az").write_text(fake.replace("ALLOWED", allowed))
        (wrapper_folder / "az").chmod(0o755)
        scenario.run("./setup.sh", first_in_path=wrapper_folder, expect=1).assert_output(message, "Nothing was changed")
        assert scenario.writes() == []


def exceeded_quota_is_not_a_missing_permission():
    scenario = Scenario()
    options = (f"app_quota={len(SEED['applications']) + 1}",)
    scenario.run("./setup.sh", "--no-test-users", options=options, expect=1).assert_output(
        "cannot register the single-page app", "the quota of directory objects is exceeded", "Run setup.sh again"
    )
    assert "permission" not in scenario.output, scenario.output
    scenario.run("./setup.sh", "--no-test-users").assert_set_up(users=False)

"""Scenarios with names and IDs in the directory that attack the scripts or the terminal."""

import json

from .expected import DOMAIN, SCOPE, SEED, initial_directory, registrations, snapshot
from .scenario import Scenario

# A name with a line break, a tab, terminal escape sequences that start with ESC or with U+009B, and characters that
# change the direction of text.
HOSTILE_NAME = "name\ndone: forged\t\x1b]0;title\x07\x1b[31m\x9b2J\u202e\u2066\u2069\u2028\r\x7f."


def line_breaks_in_names_delete_no_other_object():
    """The names contain a line break and a line of the lists of objects that cleanup.sh deletes and purges."""
    scenario = Scenario()
    scenario.run("./setup.sh")
    state = scenario.state()
    upn = SEED["users"][0]["userPrincipalName"]
    user = next(user["id"] for user in state["users"] if user["userPrincipalName"] == upn)
    deleted = {"type": "user", "id": SCOPE, "userPrincipalName": f"deleted@{DOMAIN}", "department": None}
    state["deletedItems"].append(deleted)
    api, spa = registrations(state)
    api["displayName"] = f"x\n/users/{user}\tforeign"
    spa["displayName"] = f"x\n{deleted['id']}\tforeign"
    scenario.write_state(state)

    scenario.run("./cleanup.sh", "--yes")
    state = scenario.state()
    assert [item["id"] for item in state["deletedItems"]] == [deleted["id"]], state["deletedItems"]
    assert snapshot(state) == initial_directory(), json.dumps(snapshot(state), indent=1)
    scenario.assert_output(f"  the registration x\\n/users/{user}\\tforeign\n")


def control_characters_in_names_are_not_printed():
    """`Scenario.run` asserts that the output contains no control characters."""
    scenario = Scenario()
    scenario.run("./setup.sh")
    state = scenario.state()
    for item in registrations(state) + state["servicePrincipals"]:
        if item["displayName"] != "Microsoft Graph":
            item["displayName"] = HOSTILE_NAME
    mark = "tenant-tasks-setup.tenant-tasks-api"
    state["deletedItems"].append({"type": "user", "id": SCOPE, "userPrincipalName": HOSTILE_NAME, "department": mark})
    scenario.write_state(state)

    fault = {"status": 400, "message": HOSTILE_NAME}
    scenario.run("./setup.sh").assert_output("up to date: the API name", "Enterprise applications, name")
    assert scenario.writes() == [] and "\ndone: forged" not in scenario.output
    scenario.run("./setup.sh", faults=[fault], expect=1).assert_output("Error from Graph: name")
    scenario.run("./cleanup.sh", "--dry-run").assert_output("would delete the registration name")
    scenario.run("./cleanup.sh", "--yes", faults=[fault | {"method": "DELETE"}], expect=1).assert_output(
        "Error from Graph: name"
    )
    scenario.run("./cleanup.sh", "--yes").assert_cleaned_up().assert_output("done: purge the user name")
    assert "\ndone: forged" not in scenario.output


def ids_that_are_not_guids_are_rejected():
    scenario = Scenario()
    scenario.run("./setup.sh", "--no-test-users")
    state = scenario.state()
    api, spa = registrations(state)
    api["appId"] += "\nPORT=1"
    spa["id"] = "not-a-guid"
    scenario.write_state(state)
    scenario.run("./setup.sh", "--no-test-users", expect=1).assert_output("expected a GUID in the field appId")
    assert scenario.writes() == []

    api["appId"] = api["appId"].splitlines()[0]
    scenario.write_state(state)
    scenario.run("./cleanup.sh", "--yes", expect=1).assert_output("not deleted: /applications/not-a-guid is not")
    assert scenario.writes() == []

"""Scenarios in a tenant with objects of an earlier run, of the operator or of others."""

import json

from .expected import DOMAIN, TENANT, registrations, role
from .scenario import Scenario


def objects_of_others_are_not_changed():
    upn = f"testuser-editor@{DOMAIN}"
    scenario = Scenario({"users": [{"userPrincipalName": upn, "displayName": "Someone", "mailNickname": "someone"}]})
    scenario.run("./setup.sh", expect=1).assert_output(f"the user {upn} already exists", "--no-test-users")
    assert scenario.writes() == []

    scenario = Scenario()
    line = "AZURE_API_CLIENT_ID=99999999-9999-4999-8999-999999999999\n"
    scenario.env.write_text(line)
    scenario.run("./setup.sh", expect=1).assert_output(
        "AZURE_API_CLIENT_ID in .env is not a registration that setup.sh created"
    )
    scenario.run("./cleanup.sh", "--yes", "tenant-tasks-api").assert_cleaned_up().assert_output("Nothing to delete")
    assert scenario.env.read_text() == line

    scenario.env.write_text("AZURE_HOME_TENANT_ID=99999999-9999-4999-8999-999999999999\n")
    scenario.run("./setup.sh", expect=1).assert_output("but az is signed in to")
    assert scenario.writes() == []


def changes_of_the_operator_are_kept():
    """Both scripts keep the settings, roles, redirect URIs and tenants that an operator added."""
    scenario = Scenario()
    operator_lines = "# mine\r\nPORT=9000\nAZURE_API_CLIENT_ID=\nLOG_FORMAT='json'"
    scenario.env.write_text(operator_lines)
    scenario.run("./setup.sh", "--no-test-users").assert_set_up(users=False)
    assert scenario.env.read_bytes().startswith(operator_lines.encode() + b"\n")

    state = scenario.state()
    api, spa = registrations(state)
    custom = role("Reader") | {"id": TENANT, "value": "Custom", "displayName": "Custom", "description": "Reads all"}
    api["appRoles"] = [custom, *(r for r in api["appRoles"] if r["value"] != "Editor")]
    # Graph rejects changes to the text of an enabled role, so setup.sh must keep the text of an older version.
    next(r for r in api["appRoles"] if r["value"] == "Admin")["description"] = "older text"
    api["identifierUris"], api["displayName"] = [], "renamed"
    spa["spa"]["redirectUris"] = ["https://tasks.example"]
    state["servicePrincipals"] = [p for p in state["servicePrincipals"] if p["appId"] != spa["appId"]]
    scenario.write_state(state)
    other = "99999999-8888-4777-8666-555555555555"
    text = scenario.env.read_bytes().decode().replace(f"IDS={TENANT}", f"IDS={TENANT},{other}")
    scenario.env.write_bytes(text.encode())

    scenario.run("./setup.sh", "--no-test-users")
    api, spa = registrations(scenario.state())
    assert [r["value"] for r in api["appRoles"]] == ["Custom", "Admin", "Reader", "Editor"], api["appRoles"]
    assert api["appRoles"][1]["description"] == "older text"
    assert api["identifierUris"] == [f"api://{api['appId']}"] and api["displayName"] == "renamed"
    assert spa["spa"]["redirectUris"][0] == "https://tasks.example" and len(spa["spa"]["redirectUris"]) == 3
    assert any(principal["appId"] == spa["appId"] for principal in scenario.state()["servicePrincipals"])
    assert f"ALLOWED_TENANT_IDS={TENANT},{other}" in scenario.env.read_text()

    scenario.run("./cleanup.sh", "--yes").assert_cleaned_up()
    text = scenario.env.read_bytes().decode()
    assert text == f"{operator_lines}\nALLOWED_TENANT_IDS={TENANT},{other}\n", text


def deleted_registrations_are_created_again():
    """Deletes the single-page app, then the API. cleanup.sh also deletes what remains of the API."""
    scenario = Scenario()
    for mark in ("tenant-tasks-api.spa", "tenant-tasks-api.api"):
        scenario.run("./setup.sh")
        scenario.delete_application(mark, purge=True)
        if mark.endswith("spa"):
            scenario.run("./setup.sh").assert_set_up()
    scenario.run("./cleanup.sh", "--yes", options=("privileges=member",), expect=1).assert_output(
        "does not have permission"
    )
    scenario.run("./cleanup.sh", "--yes", faults=[{"method": "DELETE", "path": "/deletedItems/", "status": 403}])
    scenario.assert_output("not purged: ")
    scenario.run("./cleanup.sh", "--yes", "tenant-tasks-api").assert_cleaned_up()


def empty_allow_list_is_kept():
    scenario = Scenario()
    scenario.env.write_text("ALLOWED_TENANT_IDS=\n")
    scenario.run("./setup.sh", "--no-test-users")
    assert scenario.env.read_text().count("ALLOWED_TENANT_IDS") == 1


def two_setups_share_one_tenant():
    scenario = Scenario()
    scenario.run("./setup.sh").assert_set_up()
    first = scenario.env.read_text()
    scenario.env.unlink()
    scenario.run("./setup.sh", "--no-test-users", "staging-api", "staging-web").assert_output(
        "register the API staging-api"
    )
    assert len(scenario.state()["applications"]) == 7
    scenario.run("./cleanup.sh", "--yes")
    marks = sorted(
        application["uniqueName"] for application in scenario.state()["applications"] if application["uniqueName"]
    )
    assert [mark.removeprefix("tenant-tasks-setup.") for mark in marks] == [
        "tenant-tasks-api-2.api",
        "tenant-tasks-api.api",
        "tenant-tasks-api.spa",
    ], marks
    assert len(scenario.state()["appRoleAssignments"]) == 3 and not scenario.env.exists()
    scenario.env.write_text(first)
    scenario.run("./cleanup.sh", "--yes", "other-name").assert_output("Nothing to delete")
    scenario.run("./setup.sh", "other-name", expect=1).assert_output(".env belongs to tenant-tasks-api")
    assert scenario.env.read_text() == first and scenario.writes() == []
    scenario.run("./cleanup.sh", "--yes").assert_cleaned_up()


def role_or_scope_with_another_id_is_reported():
    """An operator created it. Graph rejects a second one with the same value."""
    scenario = Scenario()
    scenario.run("./setup.sh", "--no-test-users")
    created = scenario.state()
    for part, value in (("appRoles", "Reader"), ("oauth2PermissionScopes", "access_as_user")):
        state = json.loads(json.dumps(created))
        api, _ = registrations(state)
        permissions = api["appRoles"] if part == "appRoles" else api["api"][part]
        next(permission for permission in permissions if permission["value"] == value)["id"] = TENANT
        scenario.write_state(state)
        scenario.run("./setup.sh", "--no-test-users", expect=1).assert_output(
            f"setup.sh: the API tenant-tasks-api already has a role or scope with the value {value}",
            "Nothing was changed",
        )
        assert "jq" not in scenario.output, scenario.output
        assert scenario.writes() == []
    scenario.run("./cleanup.sh", "--yes").assert_cleaned_up()

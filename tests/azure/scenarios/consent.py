"""Scenarios of the address for admin consent, and of the API that it needs."""

import re
import socket

from .expected import GRAPH_USER_READ, SCOPE_ACCESS, TENANT, registrations
from .scenario import TARGET, Scenario

DELETED = "99999999-9999-4999-8999-999999999999"
UNRELATED = "88888888-8888-4888-8888-888888888888"
APP = "http://localhost:3000"
DOCS = "http://localhost:8000/docs/oauth2-redirect.html"


def consent(scenario):
    """Opens the address that the last run printed as the administrator of another tenant. Returns the redirect."""
    address = re.search(r"https://\S+/adminconsent\S+", scenario.output)[0]
    return open_address(scenario, address), address


def open_address(scenario, address):
    scenario.run("curl", "-s", "-w", " %{http_code} %{redirect_url}", address)
    return scenario.output


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def service_starts_and_consent_works_after_setup():
    scenario = Scenario()
    scenario.run("./setup.sh", "--no-test-users").assert_set_up(users=False)
    _, spa = registrations(scenario.state())
    result, address = consent(scenario)
    assert f"adminconsent?client_id={spa['appId']}&" in address, address
    assert f" 302 {APP}/?admin_consent=True&tenant=" in result, result
    (customer,) = scenario.state()["customers"].values()
    assert len(customer) == 2 and spa["appId"] in customer, "one consent must add both apps"

    # The service must not connect to Entra.
    start = f"""
        export PORT={free_port()} AZURE_AUTHORITY_HOST=http://127.0.0.1:9
        {TARGET}/debug/tenant-tasks & service=$!
        for _ in $(seq 100); do curl -sf http://127.0.0.1:$PORT/health && break; sleep 0.05; done
        kill "$service"; wait "$service"
    """
    scenario.run("bash", "-c", start).assert_output('{"status":"healthy"}')
    scenario.run("./cleanup.sh", "--yes").assert_cleaned_up()


def consent_redirects_to_the_app():
    """The redirect URI is in the address, because Entra can otherwise use the one of /docs."""
    scenario = Scenario()
    scenario.run("./setup.sh", "--no-test-users")
    for redirect_uris, expected in (
        ([DOCS, APP], APP),
        (
            [DOCS, "https://api.example/docs/oauth2-redirect.html", "https://tasks.example", APP],
            "https://tasks.example",
        ),
    ):
        state = scenario.state()
        registrations(state)[1]["spa"]["redirectUris"] = redirect_uris
        scenario.write_state(state)
        scenario.run("./setup.sh", "--no-test-users")
        result, _ = consent(scenario)
        assert f" 302 {expected}/?admin_consent=True&tenant=" in result, result


def consent_works_again_after_the_api_is_deleted():
    for purge in (False, True):
        scenario = Scenario()
        scenario.run("./setup.sh", "--no-test-users")
        _, address = consent(scenario)
        if purge:
            # The recorded API is removed even if the operator added one of its permissions.
            state = scenario.state()
            registrations(state)[1]["requiredResourceAccess"][0]["resourceAccess"].append(
                {"id": TENANT, "type": "Scope"}
            )
            scenario.write_state(state)
        scenario.delete_application("tenant-tasks-api.api", purge)
        assert "AADSTS650052" in open_address(scenario, address), scenario.output

        scenario.run("./setup.sh", "--no-test-users")
        result, repaired_address = consent(scenario)
        assert f" 302 {APP}/?admin_consent=True" in result and repaired_address == address, result
        scenario.assert_set_up(users=False)
        scenario.run("./setup.sh", "--no-test-users")
        assert scenario.writes() == [], scenario.writes()
        if purge:
            scenario.run("./cleanup.sh", "--yes").assert_cleaned_up()


def deleted_apis_are_no_longer_required():
    """An older setup.sh left the deleted API in the registration. With .env, APIs that exist are kept."""
    scenario = Scenario()
    scenario.run("./setup.sh", "--no-test-users")
    state = scenario.state()
    api, spa = registrations(state)
    other = next(a["appId"] for a in state["applications"] if a["displayName"] == "tenant-tasks-api-2")
    deleted = {"resourceAppId": DELETED, "resourceAccess": SCOPE_ACCESS}
    required = {"resourceAppId": api["appId"], "resourceAccess": SCOPE_ACCESS}
    existing = {"resourceAppId": other, "resourceAccess": SCOPE_ACCESS}
    more = {"resourceAppId": UNRELATED, "resourceAccess": [{"id": TENANT, "type": "Scope"}]}
    for with_env, kept in ((True, [existing]), (False, [])):
        spa["requiredResourceAccess"] = [deleted, existing, more, required, GRAPH_USER_READ]
        scenario.write_state(state)
        if not with_env:
            scenario.env.unlink()
        scenario.run("./setup.sh", "--dry-run", "--no-test-users").assert_output(f"no longer needs: {DELETED}")
        scenario.run("./setup.sh", "--no-test-users")
        _, repaired = registrations(scenario.state())
        assert repaired["requiredResourceAccess"] == [*kept, more, required, GRAPH_USER_READ], repaired
        scenario.run("./setup.sh", "--no-test-users")
        assert scenario.writes() == [], scenario.writes()

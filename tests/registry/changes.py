"""How fast all replicas obey a change of the registry, also without the database for a while.

A client for each replica repeats GET /api/me of the changed tenant. The time counts from the exit of the command.
"""

import collections
import contextlib
import random
import runpy
import time

from bench.machine import Failed

from .fixtures import NAME, ROOT, Registry, Replica, Watcher, start_database
from .proxy import CuttableProxy

REPLICAS = 3
PROPAGATION_LIMIT_SECONDS = 2.0
# After the database is reachable again.
RECOVERY_LIMIT_SECONDS = 4.0
# After this time without the new status, a change counts as lost.
LOST_SECONDS = 15
# After a change. Replicas poll once per second, so random moments include the worst case.
SETTLE_SECONDS = (0.2, 1.2)
# The clients of the other tenant at each replica, and the pause between two requests of a client.
LOAD_USERS = ["editor", "reader"]
LOAD_PATHS = ["/api/me", "/api/tasks?limit=10"]
LOAD_PAUSE_SECONDS = 0.05
POOLER_MODES = ["transaction", "statement"]
POOLER_ROUNDS = 2
CUT_SECONDS = 10
DOWN_SECONDS = 5

# The seconds until the first new answer and until the last old answer. 0 if it came before the start of the time.
Delay = collections.namedtuple("Delay", "first last")


def propagation(setup):
    with start_database() as database:
        delays = propagate(setup, "propagation", database.url(), setup.rounds)
    for action, of_action in delays.items():
        report_delays(setup, f"propagation: {action}", of_action, None)


def pooler(setup):
    start_pooler = runpy.run_path(str(ROOT / "tests/pgbouncer/run"))["pooler"]
    for mode in POOLER_MODES:
        with start_database() as database:
            # A pooler shares sessions, so the role has the time limit. src/docs/poolers.md says so.
            database.sql(f"ALTER ROLE {NAME} SET statement_timeout = '2s'", "postgres")
            with start_pooler(database, mode) as port:
                propagate(setup, f"pooler, {mode} mode", database.url(port=port), POOLER_ROUNDS)


def propagate(setup, name, url, rounds):
    """Changes the registry again and again. Returns the delays by action."""
    contoso, key_id = setup.entra.tenant_id("contoso"), setup.entra.key_id("contoso")
    delays = collections.defaultdict(list)
    registry = Registry(setup, url)
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(Replica(setup, url)) for _ in range(REPLICAS)]
        watchers = watch(stack, setup, replicas, "contoso")

        def change(old, new, *command):
            delays[command[1]] += run_change(setup, registry, watchers, old, new, *command)

        with load(setup, name, replicas):
            for _ in range(rounds):
                change(403, 200, "tenants", "add", contoso, "--yes")
                change(200, 403, "tenants", "suspend", contoso, "--yes")
                change(403, 200, "tenants", "resume", contoso)
                change(200, 403, "tenants", "remove", contoso, "--yes")
        # All tenants of the mock Entra sign with one key, so no other tenant can send requests meanwhile.
        change(403, 200, "tenants", "add", contoso, "--yes")
        for _ in range(rounds):
            # A key id may start with a hyphen.
            change(200, 401, "keys", "revoke", "--reason", "test", "--", key_id)
            change(401, 200, "keys", "restore", "--", key_id)
    all_delays = [delay for of_action in delays.values() for delay in of_action]
    report_delays(setup, f"{name}: all changes", all_delays, PROPAGATION_LIMIT_SECONDS)
    return delays


def report_delays(setup, name, delays, limit):
    setup.report.add(f"{name}: first new answer", "s", [delay.first for delay in delays], limit)
    setup.report.add(f"{name}: last old answer", "s", [delay.last for delay in delays], limit)


@contextlib.contextmanager
def load(setup, name, replicas):
    """Clients of the tenant fabrikam send requests while the context lasts. None may fail."""
    with contextlib.ExitStack() as stack:
        clients = []
        for user in LOAD_USERS:
            token = setup.entra.token("fabrikam", user)
            clients += [Watcher(replica, token, LOAD_PATHS, LOAD_PAUSE_SECONDS) for replica in replicas]
        for client in clients:
            stack.enter_context(client)
        yield
    answers = [answer for client in clients for answer in client.answers]
    failures = [answer.status for answer in answers if answer.status != 200]
    if not answers:
        raise Failed("the other tenant sent no requests")
    setup.report.add(f"{name}: requests of the other tenant", "", [len(answers)])
    setup.report.add(f"{name}: failed requests of the other tenant", "", [len(failures)], limit=0)
    if failures:
        setup.report.problem(f"{name}: the other tenant got {collections.Counter(failures).most_common(3)}")


def watch(stack, setup, replicas, tenant):
    token = setup.entra.token(tenant)
    return [stack.enter_context(Watcher(replica, token)) for replica in replicas]


def marks(watchers):
    """Returns where the answers from now on start."""
    return [len(watcher.answers) for watcher in watchers]


def run_change(setup, registry, watchers, old, new, *command):
    """Runs a command that changes the status that each watcher gets. Returns the delays after its exit."""
    starts = marks(watchers)
    exited = registry.run(*command).exited
    return await_change(setup, " ".join(command[:2]), watchers, starts, exited, old, new)


def await_change(setup, what, watchers, starts, since, old, new):
    """Waits until each watcher gets the new status. Returns the delays."""
    deadline = time.monotonic() + LOST_SECONDS
    for number, (watcher, start) in enumerate(zip(watchers, starts, strict=True), 1):
        while not any(answer.status == new for answer in watcher.answers[start:]):
            if time.monotonic() > deadline:
                raise Failed(f"{what}: replica {number} did not return {new} within {LOST_SECONDS} s")
            time.sleep(0.01)
    time.sleep(random.uniform(*SETTLE_SECONDS))
    delays = []
    for number, (watcher, start) in enumerate(zip(watchers, starts, strict=True), 1):
        answers = watcher.answers[start:]
        if others := {answer.status for answer in answers} - {old, new}:
            setup.report.problem(f"{what}: replica {number} returned {others} instead of {old} or {new}")
        first = min(answer.at for answer in answers if answer.status == new)
        last = max((answer.at for answer in answers if answer.status == old), default=since)
        delays.append(Delay(max(0, first - since), max(0, last - since)))
    return delays


def cut(setup):
    """The connections of a replica to the database are closed or hang, and new ones are not answered."""
    contoso = setup.entra.tenant_id("contoso")
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(start_database())
        proxy = stack.enter_context(CuttableProxy(database.port))
        replica = stack.enter_context(Replica(setup, database.url(port=proxy.port)))
        registry = Registry(setup, database.url())
        # contoso is in the registry, fabrikam in the settings, and northwind in neither.
        statuses = {"contoso": 200, "fabrikam": 200, "northwind": 403}
        watchers = [watch(stack, setup, [replica], tenant)[0] for tenant in statuses]
        run_change(setup, registry, watchers[:1], 403, 200, "tenants", "add", contoso, "--yes")
        for state, close in [("closed", True), ("hanging", False)]:
            name = f"cut, {state} connections"
            starts = marks(watchers)
            proxy.cut(close)
            until = time.monotonic() + CUT_SECONDS
            registry.run("tenants", "suspend", contoso, "--yes")
            time.sleep(max(0, until - time.monotonic()))
            check_statuses(setup, name, watchers, starts, statuses)

            starts, mended = marks(watchers), time.monotonic()
            proxy.mend(close)
            delays = await_change(setup, name, watchers[:1], starts[:1], mended, 200, 403)
            report_delays(setup, f"{name}: suspended after the cut", delays, RECOVERY_LIMIT_SECONDS)
            check_statuses(setup, name, watchers[1:], starts[1:], {"fabrikam": 200, "northwind": 403})
            run_change(setup, registry, watchers[:1], 403, 200, "tenants", "resume", contoso)


def check_statuses(setup, name, watchers, starts, statuses):
    """Since `starts`, each watcher must have got one status only."""
    for watcher, start, (tenant, expected) in zip(watchers, starts, statuses.items(), strict=True):
        counts = collections.Counter(answer.status for answer in watcher.answers[start:])
        if set(counts) != {expected}:
            setup.report.problem(f"{name}: {tenant} got {dict(counts)} instead of {expected}")


def restart(setup):
    """The database crashes, is down for a while, and starts again."""
    contoso = setup.entra.tenant_id("contoso")
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(start_database())
        replicas = [stack.enter_context(Replica(setup, database.url())) for _ in range(REPLICAS)]
        registry = Registry(setup, database.url())
        changed = watch(stack, setup, replicas, "contoso")
        others = watch(stack, setup, replicas, "fabrikam")
        run_change(setup, registry, changed, 403, 200, "tenants", "add", contoso, "--yes")

        starts, starts_of_others = marks(changed), marks(others)
        database.crash()
        try:
            time.sleep(DOWN_SECONDS)
        finally:
            database.recover()
        for watcher, start in zip(changed, starts, strict=True):
            check_statuses(setup, "restart", [watcher], [start], {"contoso": 200})
        delays = run_change(setup, registry, changed, 200, 403, "tenants", "suspend", contoso, "--yes")
        report_delays(setup, "restart: suspended after the restart", delays, RECOVERY_LIMIT_SECONDS)
        for watcher, start in zip(others, starts_of_others, strict=True):
            check_statuses(setup, "restart", [watcher], [start], {"fabrikam": 200})

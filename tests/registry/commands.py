"""Commands that are killed, and the commands that end the use of the service by a tenant."""

import json
import random
import statistics
import subprocess
import threading
import time

from bench.machine import Failed

from .fixtures import NAME, TIMEOUT_SECONDS, Registry, memory_megabytes, migrate, start_database

KILLS = 60
# The longest delay before a kill, unless a complete command takes longer.
KILL_SECONDS = 0.04
COMPLETE_COMMANDS = 3
NEW_TENANT = {"name": "Killed and Sons", "max_tasks": 5, "rate_limit": 7}

# The title and the owner of the erased tasks, and the title of the tasks that remain.
TITLE = "marker-of-erased-titles"
OWNER = "Olga Offboarded"
REMAINING_TITLE = "marker-of-remaining-titles"
REMAINING_TASKS = 1000
MEMORY_LIMIT_MEGABYTES = 40
# For a command or a statement that reads or writes all tasks of the tenant.
LONG_SECONDS = 600


def kill(setup):
    """Kills `tenants add` after random delays. Its row and its log entry must both exist, or neither."""
    with start_database() as database:
        migrate(setup, database.url())
        registry = Registry(setup, database.url())
        complete = [registry.run(*add_command(number)).seconds for number in range(COMPLETE_COMMANDS)]
        setup.report.add("kill: complete command", "s", complete)
        longest = max(KILL_SECONDS, 1.2 * statistics.median(complete))
        numbers = range(COMPLETE_COMMANDS, COMPLETE_COMMANDS + KILLS)
        for number in numbers:
            process = registry.start(*add_command(number))
            time.sleep(random.uniform(0, longest))
            process.kill()
            check_state(setup, database, number, process.wait(TIMEOUT_SECONDS))
        # Meanwhile the server may have committed the change of a client that was killed.
        time.sleep(1)
        states = [check_state(setup, database, number) for number in numbers]
        # No killed client may have left a lock.
        last = registry.run(*add_command(COMPLETE_COMMANDS + KILLS))
        setup.report.add("kill: complete command afterwards", "s", [last.seconds])
    setup.report.add("kill: kills", "", [KILLS])
    setup.report.add("kill: changes that took effect", "", [sum(states)])


def add_command(number):
    options = ["--name", NEW_TENANT["name"], "--max-tasks", str(NEW_TENANT["max_tasks"])]
    return ["tenants", "add", killed_tenant(number), *options, "--rate-limit", str(NEW_TENANT["rate_limit"]), "--yes"]


def killed_tenant(number):
    return f"{number:08x}-0000-4000-8000-0000000000aa"


def check_state(setup, database, number, exit_code=None):
    """Checks in one snapshot that the change was applied completely or not at all. Returns whether it was applied."""
    tenant = killed_tenant(number)
    row = f"FROM allowed_tenants WHERE tenant_id = '{tenant}'"
    complete = " AND ".join(f"{column} = '{value}'" for column, value in NEW_TENANT.items())
    state = database.sql(
        f"SELECT (SELECT count(*) {row}), (SELECT count(*) {row} AND {complete} AND status = 'active'), "
        f"(SELECT count(*) FROM registry_log WHERE subject = '{tenant}')"
    )
    if state not in ["0|0|0", "1|1|1"]:
        setup.report.problem(f"kill: rows, complete rows and log entries of one tenant are {state}")
    if exit_code == 0 and state == "0|0|0":
        setup.report.problem("kill: a command exited with 0 and changed nothing")
    return state != "0|0|0"


def offboarding(setup):
    """Exports and erases the tasks of the tenant contoso. The tasks of fabrikam must remain."""
    contoso, fabrikam = (setup.entra.tenant_id(tenant) for tenant in ["contoso", "fabrikam"])
    report = setup.report
    with start_database() as database:
        migrate(setup, database.url())
        registry = Registry(setup, database.url())
        registry.run("tenants", "add", contoso, "--yes")
        insert_tasks(database, contoso, setup.tasks, OWNER, TITLE)
        insert_tasks(database, fabrikam, REMAINING_TASKS, "Rita Remaining", REMAINING_TITLE)
        markers = [TITLE, OWNER, REMAINING_TITLE]
        # Otherwise the search after the erasure would prove nothing.
        if (found := find_in_dump(database, markers)) != set(markers):
            raise Failed(f"the dump contains only {found} before the erasure")

        exported = setup.folder / "export.ndjson"
        seconds, megabytes = export(setup, registry, contoso, exported)
        report.add(f"offboarding: export of {setup.tasks:,} tasks", "s", [seconds])
        report.add("offboarding: peak memory of the export", "MB", [megabytes], MEMORY_LIMIT_MEGABYTES)
        check_export(setup, exported)
        exported.unlink()

        check_rejected_erasure(setup, database, registry, "of an active tenant", contoso, contoso)
        registry.run("tenants", "suspend", contoso, "--yes")
        check_rejected_erasure(setup, database, registry, "with a wrong confirmation", contoso, fabrikam)
        erased = registry.run("tenants", "erase", contoso, text=f"{contoso}\n", seconds=LONG_SECONDS)
        report.add(f"offboarding: erasure of {setup.tasks:,} tasks", "s", [erased.seconds])
        if (found := find_in_dump(database, markers)) != {REMAINING_TITLE}:
            report.problem(f"offboarding: the dump after the erasure contains {found}")
        if (count := count_tasks(database, fabrikam)) != REMAINING_TASKS:
            report.problem(f"offboarding: the other tenant has {count} tasks instead of {REMAINING_TASKS}")


def insert_tasks(database, tenant, count, owner, title):
    database.sql(
        f"INSERT INTO tenants (tenant_id, last_task_id, task_count, max_tasks) "
        f"VALUES ('{tenant}', {count}, {count}, {count})"
    )
    database.sql(
        "INSERT INTO tasks (tenant_id, id, user_id, completed, owner_name, title) "
        f"SELECT '{tenant}'::uuid, number, '{tenant}'::uuid, number % 2 = 0, '{owner}', '{title} ' || number "
        f"FROM generate_series(1, {count}) AS number",
        seconds=LONG_SECONDS,
    )
    database.sql("VACUUM (ANALYZE) tasks", seconds=LONG_SECONDS)


def count_tasks(database, tenant):
    return int(database.sql(f"SELECT count(*) FROM tasks WHERE tenant_id = '{tenant}'", seconds=LONG_SECONDS))


def export(setup, registry, tenant, path):
    """Writes the tenant's tasks to a file. Returns the seconds and the peak memory.

    The peak is that of the process's status. Its resource usage would include the memory of this interpreter, which
    the process shares between its start and the execution of the binary.
    """
    errors = setup.folder / "export.errors"
    started, megabytes = time.monotonic(), 0
    with open(path, "wb") as output, open(errors, "wb") as error_output:
        process = registry.start("tenants", "export", tenant, stdout=output, stderr=error_output)
    try:
        while process.poll() is None:
            if time.monotonic() > started + LONG_SECONDS:
                raise Failed(f"tenants export did not end after {LONG_SECONDS} s")
            megabytes = max(megabytes, memory_megabytes(process.pid, "VmHWM"))
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise Failed(f"tenants export exited with {process.returncode}:\n{errors.read_text()}")
    return time.monotonic() - started, megabytes


def check_export(setup, path):
    """Each line must be another task of the tenant."""
    ids, lines, wrong = set(), 0, 0
    with open(path) as exported:
        for line in exported:
            lines += 1
            task = json.loads(line)
            ids.add(task.get("id"))
            wrong += task.get("title") != f"{TITLE} {task.get('id')}"
    if lines != setup.tasks or len(ids) != setup.tasks or wrong:
        setup.report.problem(
            f"offboarding: {lines:,} lines with {len(ids):,} ids were exported of {setup.tasks:,} tasks, "
            f"and {wrong:,} titles are wrong"
        )


def check_rejected_erasure(setup, database, registry, what, tenant, confirmation):
    """The command must fail and delete nothing."""
    exit_code = registry.attempt("tenants", "erase", tenant, text=f"{confirmation}\n", seconds=LONG_SECONDS).returncode
    count = count_tasks(database, tenant)
    if exit_code == 0 or count != setup.tasks:
        setup.report.problem(f"offboarding: an erasure {what} exited with {exit_code} and left {count:,} tasks")


def find_in_dump(database, markers):
    """Returns the markers that a dump of the database contains."""
    found = set()
    process = subprocess.Popen([*database.client("pg_dump"), NAME], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    timer = threading.Timer(LONG_SECONDS, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            found.update(marker for marker in markers if marker.encode() in line)
    finally:
        process.stdout.close()
        exit_code = process.wait()
        timer.cancel()
    if exit_code != 0:
        raise Failed(f"pg_dump exited with {exit_code}")
    return found

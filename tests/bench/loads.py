"""Requests per second of all contestants.

All contestants run at the same time and take turns. In each round, every load is sent to each contestant for a few
seconds, after one second of warm-up. Every server is pinned to one core and wrk to another; two workers share their
core. tenant-tasks and the floor log a line per request to /dev/null. The other contestants log nothing.
"""

import re
import sys

from . import plan
from .machine import Failed, cores
from .paths import LUA
from .wrk import bearer, requests_per_second, run_wrk


def measure(contestants, ready, options):
    """Returns requests per second and the busy share of the server's core: load → contestant → a figure per round."""
    rates = {load: {name: [] for name in plan.CONTESTANTS[load]} for load in options.loads}
    busy = {load: {name: [] for name in plan.CONTESTANTS[load]} for load in options.loads}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for load in options.loads:
            for name in plan.rotated(plan.CONTESTANTS[load], number):
                arguments = wrk_arguments(load, contestants[name].address, ready, number)
                if load != "new":  # a warm-up would use up the new tokens
                    run_load(arguments, 1, contestants[name])
                rate, share = run_load(arguments, options.seconds, contestants[name])
                rates[load][name].append(rate)
                busy[load][name].append(share)
    return {"rates": rates, "busy": busy}


def wrk_arguments(load, address, ready, number):
    """Returns the arguments of wrk for a load in a round, without the duration."""
    common = ["--threads", "1", "--timeout", "30s"]
    connections = ["--connections", plan.CONNECTIONS]
    url = f"{address}/api/tasks"
    match load:
        case "warm":
            return [*common, *connections, *bearer(ready, "contoso/editor"), url]
        case "many":
            return [*common, *connections, "--script", LUA / "many.lua", url, "--", ready["many"]]
        case "new":
            script = ["--script", LUA / "new.lua"]
            return [*common, *connections, *script, url, "--", ready["new"][number], plan.CONNECTIONS]
        case "write":
            script = ["--script", LUA / "write.lua"]
            return [*common, *connections, *script, *bearer(ready, "contoso/admin"), url]
        case "big":  # few connections, because a slow contestant returns only a few lists per second
            return [*common, "--connections", "4", *bearer(ready, "fabrikam/admin"), url]


def run_load(arguments, seconds, contestant):
    """Returns requests per second and the busy share of the server's core."""
    before = contestant.processor_seconds()
    try:
        output = run_wrk(["--duration", f"{seconds}s", *arguments], cores().client)
        rate = requests_per_second(output)
    except Failed as failure:
        raise Failed(f"{plan.NAMES[contestant.name]}: {failure}") from None
    spent = contestant.processor_seconds() - before
    # new.lua measures the time itself.
    if received := re.search(r"received (\d+) responses in ([\d.]+) seconds", output):
        count, duration = int(received[1]), float(received[2])
        return count / duration, min(1, spent / duration)
    return rate, min(1, spent / seconds)

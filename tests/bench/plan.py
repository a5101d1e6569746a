"""What the benchmark measures: the contestants, the loads and the bounds."""

# The service's path from the connection to the store and back, without authentication.
FLOOR = "floor"
# The floor plus one RSA verification per request. A token that is new to the service cannot cost less.
SIGNED_FLOOR = "signed-floor"
OURS = "tenant-tasks"
FASTAPI_PORT = "original"
FASTAPI_PORT_TWO_WORKERS = "original-2"
NODE = "node"
RUST = "rust"

NAMES = {
    FLOOR: "no authentication (the floor)",
    SIGNED_FLOOR: "the floor and one RSA verification",
    OURS: "tenant-tasks",
    FASTAPI_PORT: "FastAPI, one worker",
    FASTAPI_PORT_TWO_WORKERS: "FastAPI, two workers",
    NODE: "Node, Fastify and jose",
    RUST: "axum, tower-oauth2-resource-server",
}
LOADS = {
    "warm": "10 tasks, one token for all requests",
    "many": "10 tasks, 10,000 tokens in turn",
    "new": "10 tasks, each token sent once",
    "write": "create, patch, delete",
    "big": "an Admin's list of 10,000 tasks",
}

_ALL = [FLOOR, OURS, FASTAPI_PORT, FASTAPI_PORT_TWO_WORKERS, NODE, RUST]
# - new: to the other contestants, a new token costs the same as any token.
# - write: the floor cannot patch and delete. Two workers do not share their tasks, so patches would fail.
# - big: the floor does not know roles.
CONTESTANTS = {
    "warm": _ALL,
    "many": _ALL,
    "new": [FLOOR, SIGNED_FLOOR, OURS],
    "write": [OURS, FASTAPI_PORT, NODE, RUST],
    "big": [OURS, FASTAPI_PORT, FASTAPI_PORT_TWO_WORKERS, NODE, RUST],
}

# The lowest acceptable ratio of tenant-tasks to a contestant.
BOUNDS = {
    ("warm", FLOOR): 0.85,
    ("many", FLOOR): 0.80,
    ("new", SIGNED_FLOOR): 0.80,
    ("warm", FASTAPI_PORT): 25,
    ("warm", NODE): 4,
    ("warm", RUST): 1.5,
}

CONNECTIONS = 32
TASKS = 10
BIG_LIST_TASKS = 10_000
NEW_TOKENS_PER_ROUND = 20_000


def rotated(items, turn):
    """Moves the start of the list, so that a different item is first in each turn.

    The first item of a round finds the processor in a different state than the others.
    """
    first = turn % len(items)
    return items[first:] + items[:first]

"""Three processes on one server, thirty clients moving at random."""

import asyncio
import contextlib
import random

from tests.helpers.client import connect
from tests.helpers.events import memberships
from tests.helpers.truth import expected_rooms, quiet, settled

from .laboratory import end

CLIENTS, MOVES = 30, 20
ROOMS = ["hall", "東京", "user@example.org", "a/b?c", None]


async def test_random_moves(cluster, own_redis):
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # Shown if it fails.
    dice = random.Random(seed)
    nodes = cluster.start("daphne", "uvicorn", "daphne")
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                connect(nodes[number % len(nodes)], "hall", f"client-{number}")
            )
            for number in range(CLIENTS)
        ]
        routes = [[dice.choice(ROOMS) for _ in range(MOVES)] for _ in clients]
        await asyncio.gather(*map(walk, clients, routes))
        await settled(cluster, clients)
        assert memberships(cluster.events()) == expected_rooms(clients)
    events = await quiet(cluster)
    entered = {name for name in ROOMS if name}
    assert {event["group"] for event in events} == entered
    # The truth of the clients, beside what the oracle finds in the logs alone.
    welcomes = sum(len(entries(client)) for client in clients)
    for event in ("join", "leave"):
        assert len([one for one in events if one["event"] == event]) == welcomes
    await end(cluster, own_redis)


async def walk(client, route):
    for room in route:
        await client.move(room)


def entries(client):
    """Return the rooms that a client entered, one after the other."""
    rooms = [welcome["room"] for welcome in client.all_of("welcome")]
    changes = [now for before, now in zip([None, *rooms], rooms) if now != before]
    return [room for room in changes if room is not None]

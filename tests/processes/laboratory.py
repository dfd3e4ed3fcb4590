"""What the tests of faults share: processes, visitors, and whether all is right."""

import asyncio
import contextlib
import time

from tests.helpers.client import connect
from tests.helpers.eventually import aeventually
from tests.helpers.truth import nobody_is_deaf, quiet, settled, signalled
from tests.storm.world import ask, unexpected

APPLICATION = "tests.helpers.application:application"
LEASE = 4
ROOMS = ["red", "green", "blue"]
ENV = {"GROUP_LEASE": str(LEASE)}
#: Seconds that a busy machine may add to what is promised.
NOISE = 2


@contextlib.asynccontextmanager
async def visitors(nodes, each=4):
    """Connect some clients to every node, spread over the rooms."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for node in nodes:
            for number in range(each):
                room = ROOMS[number % len(ROOMS)]
                client = connect(node, room, f"{node.name}-{number}")
                clients.append(await stack.enter_async_context(client))
        yield clients


async def check(cluster, clients):
    """Everything is as it should be, and nobody is deaf."""
    await settled(cluster, clients)
    await nobody_is_deaf(clients)
    await signalled(cluster, clients)


async def end(cluster, redis, harmless=(), excused=()):
    """All is over: every membership has ended, and nothing is left anywhere.

    `harmless` are words of those complaints in the logs that a test asks for, and
    `excused` the ends of keys that the layer leaves behind by itself.
    """
    await quiet(cluster)

    async def left():
        kept = [one for one in left_in(redis) if not one.endswith(tuple(excused))]
        return [*await remains(cluster), *kept]

    await aeventually(left, equals=[], timeout=20)
    for node in cluster.nodes:
        complaints = unexpected(node.log)
        assert [
            one for one in complaints if not any(word in one for word in harmless)
        ] == []


async def remains(cluster):
    """Return what is left of the library in the processes that still run."""
    answers = [(node, await ask(node, "tasks/")) for node in cluster.running]
    return [f"{node.name}: {left}" for node, left in answers if any(left.values())]


def left_in(redis):
    """Return the keys and subscriptions that no message and no memory explains."""
    with redis.client() as client:
        lives = {key: client.ttl(key) for key in client.scan_iter(count=1000)}
        channels = set(client.pubsub_channels("*")) - {"__sentinel__:hello"}
    # What an evicted process may ask for, and messages to the dead, expire.
    keys = [key for key, life in lives.items() if not 0 <= life <= 600]
    return [*keys, *channels]


def leaves(cluster, reason):
    """Return the events of leaves for this reason."""
    return [one for one in cluster.events() if one.get("reason") == reason]


async def all_lost(cluster, number, within, since):
    """Wait for so many members to be lost; each must be, `within` seconds."""
    await aeventually(
        lambda: len(leaves(cluster, "lost")) == number, timeout=within + 20
    )
    latest = max(event["time"] for event in leaves(cluster, "lost"))
    assert latest - since <= within + NOISE


def now():
    """Return the time as the event logs have it."""
    return time.time()


async def pause(seconds):
    """Let time pass, where its passing is what is tested."""
    await asyncio.sleep(seconds)

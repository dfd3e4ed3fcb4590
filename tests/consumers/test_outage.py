"""What a user's code sees while the store is away, and what is left when it is back."""

import asyncio
import logging
import os
import time
import weakref
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group, get_group_manager
from channels_groups.node import find_nodes

from ..helpers.eventually import aeventually
from ..helpers.proxy import TcpProxy
from .chats import AsyncChat, Client, cases

on_both_layers = cases("core-async", "pubsub-async")
#: Seconds within which StoreUnavailable is promised, and what a busy machine adds.
PROMISED, NOISE = 2, 4
#: Connects a second, and for how many seconds; of the promise it is 1,000 for 30.
RATE = int(os.environ.get("OUTAGE_RATE", 200))
OUTAGE = int(os.environ.get("OUTAGE_SECONDS", 8))
#: Tasks of one consumer that connects.
TASKS = 6
#: What Linux knows of a thread: nanoseconds on a processor and waiting for one.
SCHEDULED = Path("/proc/thread-self/schedstat")


@pytest.fixture
def wire(server):
    """What is between this process and the server."""
    with TcpProxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def address(wire):
    return wire.url


@contextmanager
def away(wire, how):
    """Keep the server out of reach: it is silent, or its port is closed."""
    if how == "refused":
        wire.refuse()
        wire.cut()
    else:
        wire.drop()
    try:
        yield
    finally:
        wire.heal()


async def refused(call):
    """Return the seconds after which a call raised StoreUnavailable."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    return time.monotonic() - began


async def everything(iterator):
    return [one async for one in iterator]


def reads():
    """Return a call of everything that asks the store."""
    group, manager = get_group("room"), get_group_manager()
    return [
        *(group.acount(), group.auser_count(), group.ausers(), group.aexists()),
        *(group.aget("nobody"), everything(group), everything(manager.agroups())),
        *(manager.agroup_count(), manager.amembership_count()),
    ]


@pytest.mark.parametrize("how", ["silent", "refused"])
@on_both_layers
async def test_what_is_asked_of_the_store_fails_in_time(connect, wire, caplog, how):
    """Reads and joins say so, connections stay, leaves are made up for."""
    stays, moves, goes = [await connect(AsyncChat, "room") for _ in range(3)]
    caplog.set_level(logging.INFO, "channels_groups")
    with away(wire, how):
        calls = [*reads(), *(get_group("room").acount() for _ in range(150))]
        calls += [moves.set_group("other"), stays.join_group("beside")]
        waited = await asyncio.gather(*map(refused, calls))
        assert max(waited) < PROMISED + NOISE, [round(one, 1) for one in waited]
        began = time.monotonic()
        await stays.set_group(None)
        assert time.monotonic() - began < PROMISED + NOISE
        await goes.disconnect()
        assert await stays.do(lambda consumer: consumer.group_name) is None
        assert await moves.do(lambda consumer: consumer.group_name) == "room"
    await aeventually(members, equals=[moves.id], ignoring=(StoreUnavailable,))
    await aeventually(lambda: stays.set_group("room"), ignoring=(StoreUnavailable,))
    assert sorted(await members()) == sorted([moves.id, stays.id])
    # Pub/sub hears nothing for a second after its connection was lost.
    await aeventually(lambda: hear(stays, moves))
    assert not await get_group("beside").aexists()
    await aeventually(lambda: len(lines(caplog)) == 2)
    begins, ends = lines(caplog)
    assert begins.startswith("ERROR Group membership is unavailable: ")
    assert ends.startswith("WARNING Group membership is back after ")


async def hear(*clients):
    """Return whether all hear what is said now."""
    await get_group("room").asend("all is well")
    await asyncio.sleep(0.1)
    return not any(client.output_queue.empty() for client in clients)


async def members():
    return [one.id for one in await everything(get_group("room"))]


def lines(caplog):
    """Return what was said about the outage."""
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "channels_groups"
    ]


@pytest.mark.parametrize("how", ["silent", "refused"])
@cases("core-async")
async def test_nothing_grows_in_an_outage_under_many_connects(
    connect, wire, caplog, how
):
    """Each connects to a room of its own and is turned away; nothing is left of it.

    Not on pub/sub, where Channels itself waits for Redis before connect() is called.
    """
    asyncio.get_running_loop().set_debug(False)  # Too slow for so many.
    caplog.set_level(logging.INFO, "channels_groups")
    stays = await connect(AsyncChat, "room")
    consumers = weakref.WeakSet()
    held, waited, visits = Counter(), [], set()
    with away(wire, how):
        began = time.monotonic()
        came = 0
        while (passed := time.monotonic() - began) < OUTAGE:
            while came < RATE * passed:
                visit = asyncio.create_task(turn_away(came, consumers, waited))
                visits.add(visit)
                visit.add_done_callback(visits.discard)
                came += 1
            await asyncio.sleep(0.02)
            held |= Counter(size(), consumers=len(consumers))
            held |= Counter(tasks=len(asyncio.all_tasks()))
            report(passed, came, held)
    await asyncio.gather(*visits)
    # Others may use the processors too: that is not the library's time.
    taken = max(delay for _, delay in waited)
    assert max(wait - delay for wait, delay in waited) < PROMISED + NOISE
    # Those that wait, each with some tasks; nothing of who has been turned away.
    most = RATE * (PROMISED + NOISE + taken)
    assert held.pop("tasks") <= TASKS * most
    assert max(held.values()) <= most, held
    assert len(waited) > RATE * (OUTAGE - PROMISED - NOISE - taken)
    await aeventually(size, equals=Counter(groups=1, connections=1))
    await aeventually(lambda: hear(stays))
    await aeventually(lambda: len(lines(caplog)) == 2)
    begins, ends = lines(caplog)
    assert begins.startswith("ERROR Group membership is unavailable: ")
    assert ends.startswith("WARNING Group membership is back after ")


async def turn_away(number, consumers, waited):
    """Connect, and note the seconds until connect() raised as the store was away, and
    for how many of them this process had no processor.
    """
    began, delay = time.monotonic(), delayed()
    client = Client(AsyncChat, room=f"room {number}")
    await client.send_input({"type": "websocket.connect"})
    accepted = asyncio.create_task(client.output_queue.get())
    await asyncio.wait([client.future, accepted], return_when=asyncio.FIRST_COMPLETED)
    consumers.add(client.consumer)
    if accepted.done():
        await client.disconnect()
        return
    accepted.cancel()
    with pytest.raises(StoreUnavailable):
        await client.wait()
    waited.append((time.monotonic() - began, delayed() - delay))


def delayed():
    """Return the seconds for which this thread has waited for a processor."""
    return int(SCHEDULED.read_text().split()[1]) / 1e9 if SCHEDULED.exists() else 0.0


def report(passed, came, held):
    """Tell how it goes, for who runs it with OUTAGE_RATE=1000 OUTAGE_SECONDS=30 -s."""
    if int(passed) != int(passed - 0.02):
        memory = int(Path("/proc/self/statm").read_text().split()[1]) // 256
        print(f"{passed:.0f} s: {came} came, {memory} MB, at most {dict(held)}")


def size():
    """Return how much waits for the store."""
    (node,) = find_nodes("default")
    (shard,) = node._shards
    writer = shard._writer
    waiting = (len(group.waiting) for group in shard.groups.values())
    return Counter(
        requests=len(writer._queue) + len(writer._batch) + sum(waiting),
        groups=len(shard.groups),
        layer=sum(len(lane._work) for lane in writer._places._lanes.values()),
        connections=len(node.connections),
    )

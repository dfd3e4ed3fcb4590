"""Giving a store back what it lost, whatever comes between.

A part that is in the store already must not look like a loss: all processes would
write everything once more, and what is void meanwhile is wiped.
"""

import asyncio
from collections import Counter

import pytest

from channels_groups import names
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group, get_group_manager
from channels_groups.node import find_nodes
from channels_groups.stores.base import Entry, Incarnation, Join, LeaseLost, Member
from channels_groups.stores.redis import RedisStore

from ..helpers import layers
from ..helpers.eventually import aeventually
from ..helpers.points import Pause
from .chats import AsyncChat, cases

on_both_layers = cases("core-async", "pubsub-async")
#: More than one batch.
ROOMS = [f"room {number}" for number in range(55)]


def lose_everything(server, prefix):
    with server.client() as client:
        for key in layers.keys_of(server, prefix):
            if ":groups:" in key:
                client.delete(key)


def lose_the_index(server, prefix):
    with server.client() as client:
        assert client.delete(f"{prefix}:groups:index")


losses = pytest.mark.parametrize("lose", [lose_everything, lose_the_index])


def writer():
    (node,) = find_nodes("default")
    (shard,) = node._shards
    return shard._writer


async def is_in_all_rooms(client):
    for room in ROOMS:
        if [member.id async for member in get_group(room)] != [client.id]:
            return False
    return True


async def check_nothing_is_missed():
    """Audit every group: nothing more is found to be lost."""
    before = writer().epoch
    states = [(await writer().lease.renew()).state for _ in range(len(ROOMS) + 1)]
    assert set(states) == {"alive"}
    assert writer().epoch == before


@pytest.mark.parametrize(
    "number, when, error",
    [
        (0, "after", StoreUnavailable),
        (1, "before", LeaseLost),
        (1, "after", StoreUnavailable),
    ],
)
@losses
@on_both_layers
async def test_interrupted_between_two_batches(
    connect, events, server, prefix, monkeypatch, lose, number, when, error
):
    """The store did not get one of them, or did and the answer was lost."""
    client = await connect(AsyncChat)
    for room in ROOMS:
        await client.join_group(room)
    commit, restored = RedisStore.commit, []

    async def interrupted(store, *args, restore=False):
        first = restore and len(restored) == number
        restored.extend([1] * restore)
        if first and when == "before":
            raise error("Deliberately.")
        answers = await commit(store, *args, restore=restore)
        if first:
            raise error("Deliberately.")
        return answers

    monkeypatch.setattr(RedisStore, "commit", interrupted)
    told = list(events)
    lose(server, prefix)
    await aeventually(lambda: len(restored) > number + 1)
    await aeventually(lambda: is_in_all_rooms(client))
    await aeventually(lambda: not writer()._disowned)
    await check_nothing_is_missed()
    assert events == told


@losses
@on_both_layers
async def test_renewed_while_it_registers(connect, server, prefix, monkeypatch, lose):
    """The store has the lease, and the node does not know of it yet."""
    client = await connect(AsyncChat)
    for room in ROOMS:
        await client.join_group(room)
    pause, subscribe = Pause(), RedisStore._subscribe

    async def slow(*args):
        await subscribe(*args)
        if asyncio.current_task() is writer()._task and not pause.over.is_set():
            await pause()

    monkeypatch.setattr(RedisStore, "_subscribe", slow)
    lose(server, prefix)
    await asyncio.wait_for(pause.reached.wait(), 5)
    renewals = [asyncio.create_task(writer().lease.renew()) for _ in range(3)]
    await asyncio.wait(renewals, timeout=0.2)
    pause.end()
    states = [renewal.state for renewal in await asyncio.gather(*renewals)]
    assert states == ["alive"] * 3
    await aeventually(lambda: is_in_all_rooms(client))
    await aeventually(lambda: not writer()._disowned)
    await check_nothing_is_missed()
    assert await get_group_manager().amembership_count() == len(ROOMS)


@on_both_layers
async def test_what_is_under_way_waits_until_the_dead_are_evicted(
    connect, configure, events, server, prefix
):
    """Before data is wiped that tells of them: joins, updates and leaves."""
    configure(LEASE=2)
    goes, joins, updates = [await connect(AsyncChat) for _ in range(3)]
    for client in (goes, updates):
        await client.set_group("room")
    await die(Incarnation("dead", "dead!", "1"), "room", "other")
    before = len(events)
    lose_the_index(server, prefix)
    await asyncio.gather(
        *(goes.set_group(None), joins.set_group("room")),
        updates.do(lambda consumer: consumer.update_info({"n": 1})),
    )
    await aeventually(lambda: len(events) >= before + 5, timeout=20)
    await aeventually(lambda: not writer()._disowned)
    told = Counter((one.name, one.group.name, one.reason) for one in events[before:])
    assert told == Counter(
        [
            *(("leave", "room", "lost"), ("leave", "other", "lost")),
            *(("destroyed", "other", None), ("leave", "room", "left")),
            ("join", "room", None),
        ]
    )
    found = {one.id: one.info async for one in get_group("room")}
    assert found == {joins.id: {}, updates.id: {"n": 1}}
    assert await get_group("room").acount() == 2
    assert await get_group_manager().agroup_count() == 1
    await check_nothing_is_missed()


async def die(dead, *rooms):
    """Be a process that joined some rooms and was killed."""
    store = get_group_manager().store
    await store.register(0, dead, "", 2)
    joins = [Join(room, Member("x", "dead!x", None, {}, 1.5)) for room in rooms]
    entries = {room: [Entry(names.own_name(room), dead.channel)] for room in rooms}
    await store.commit(0, dead, 1, joins, entries)
    await store.forget(dead)

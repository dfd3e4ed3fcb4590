"""update_info(): what the others see of a member changes while it is one."""

import asyncio

import pytest

from channels_groups import signals
from channels_groups.manager import get_group
from channels_groups.testing import capture_group_events

from ..helpers.eventually import aeventually
from .chats import AsyncToldChat, async_only, cases, in_memory


async def info_in(name):
    """Return what the store has of the members of a group."""
    return [one.info async for one in get_group(name)]


async def update(client, info):
    return await client.do(lambda consumer: consumer.update_info(info))


@pytest.fixture
def updates():
    """What group_update told."""
    told = []

    async def receive(sender, group, connection, count, user_count, revision, **kwargs):
        told.append((group.name, connection.id, connection.info, count, user_count))

    signals.group_update.connect(receive)
    yield told
    signals.group_update.disconnect(receive)


async def test_the_others_are_told_of_an_update_and_of_nothing_else(
    told_chat, connect, events, updates
):
    ann = await connect(told_chat, "room", user_id="ann", info={"name": "Ann", "n": 1})
    bob = await connect(told_chat, "room", user_id="bob")
    await ann.join_group("other")
    await aeventually(lambda: ann.joined)
    before = len(events)
    await update(ann, {"n": 2, "typing": True})
    merged = {"name": "Ann", "n": 2, "typing": True}
    ann_id = ann.id
    assert sorted(updates) == [
        ("other", ann_id, merged, 1, 1),
        ("room", ann_id, merged, 2, 2),
    ]
    assert ann.consumer.connection.info == merged
    assert merged in await info_in("room")
    assert await info_in("other") == [merged]
    await aeventually(lambda: bob.updated and len(ann.updated) == 2)
    [(name, told)] = bob.updated
    assert (name, told.id, told.info, told.user_id) == ("room", ann_id, merged, "ann")
    assert {name for name, _ in ann.updated} == {"room", "other"}
    change = bob.changes[-1]
    assert (change.joined, change.left, change.count) == ((), (), 2)
    assert [one.id for one in change.updated] == [ann_id]
    assert len(events) == before
    assert bob.joined == [] and bob.left == []


async def test_what_changes_nothing_is_told_to_nobody(told_chat, connect, updates):
    ann = await connect(told_chat, "room", info={"n": 1})
    await update(ann, {"n": 1})
    await update(ann, {})
    assert updates == []
    assert await ann.has_received_nothing() and ann.changes == []


async def test_groups_entered_later_get_the_updated_info(chat, connect):
    ann = await connect(chat, None, info={"name": "Ann", "n": 1})
    await update(ann, {"n": 2})
    await ann.set_group("a")
    assert await info_in("a") == [{"name": "Ann", "n": 2}]
    await update(ann, {"m": 3})
    await ann.set_group("b")
    assert await info_in("b") == [{"name": "Ann", "n": 2, "m": 3}]


@cases("memory-async", "core-sync")
async def test_bad_info_changes_nothing(chat, connect, updates):
    ann = await connect(chat, "room", info={"a": "x" * 5000})
    with pytest.raises(TypeError, match="update_info.. must be a dict, not list"):
        await update(ann, [])
    with pytest.raises(TypeError, match="'b'"):
        await update(ann, {"b": object()})
    with pytest.raises(ValueError, match="8,192"):
        await update(ann, {"b": "x" * 4000})
    assert await info_in("room") == [{"a": "x" * 5000}]
    await ann.set_group("other")
    assert await info_in("other") == [{"a": "x" * 5000}]
    assert updates == []


async def test_updating_from_outside(chat, connect, updates, caplog):
    ann = await connect(chat, "room", info={"a": 1})
    [found] = [one async for one in get_group("room")]
    await found.aupdate_info({"b": 2})
    await aeventually(lambda: updates)
    assert await info_in("room") == [{"a": 1, "b": 2}]
    with pytest.raises(TypeError, match="update_info"):
        await found.aupdate_info(None)
    with caplog.at_level("INFO", "channels_groups"):
        await found.aupdate_info({"c": "x" * 8170})
        await aeventually(lambda: "did not: update_info() has" in caplog.text)
    assert await info_in("room") == [{"a": 1, "b": 2}]
    await ann.end()


@in_memory
async def test_an_ended_connection_is_not_updated(chat, connect):
    from channels_groups.exceptions import ConnectionClosed

    ann = await connect(chat, "room")
    consumer, connection = ann.consumer, ann.consumer.connection
    await ann.end()
    with pytest.raises(ConnectionClosed):
        await connection.aupdate_info({})
    with pytest.raises(ConnectionClosed):
        await consumer._update_info({"a": 1})


@async_only
async def test_a_receiver_of_the_group_cannot_wait_for_its_update(connect):
    """It gets an error instead of a deadlock."""
    ann = await connect(AsyncToldChat, "room")
    errors = []

    async def receive(sender, group, connection, **kwargs):
        try:
            await ann.consumer._update_info({"a": 1})
        except RuntimeError as error:
            errors.append(error)

    signals.group_join.connect(receive)
    try:
        await connect(AsyncToldChat, "room")
    finally:
        signals.group_join.disconnect(receive)
    assert len(errors) == 1


async def test_joins_updates_and_leaves_of_many_end_in_the_truth(told_chat, connect):
    """Each change names the one before, so who listens knows it misses nothing."""
    ann = await connect(told_chat, "room")
    others = [await connect(told_chat, info={"n": 0}) for _ in range(5)]

    async def wander(number, client):
        for n in range(1, 4):
            await client.set_group("room")
            await update(client, {"n": n})
            await client.set_group(None)
        if number % 2:
            await client.set_group("room")
            await update(client, {"n": 99})

    await asyncio.gather(*(wander(*pair) for pair in enumerate(others)))
    truth = {one.id: one.info async for one in get_group("room")}
    del truth[ann.id]

    def believed():
        inside = {}
        for change in ann.changes:
            inside.update({one.id: one.info for one in change.joined})
            inside.update({one.id: one.info for one in change.updated})
            for one in change.left:
                inside.pop(one.id, None)
        return inside

    await aeventually(believed, equals=truth)
    chain = [(change.previous, change.revision) for change in ann.changes]
    assert [previous for previous, _ in chain[1:]] == [last for _, last in chain[:-1]]
    assert await get_group("room").arevision() == chain[-1][1]


@async_only
async def test_changes_come_in_order_and_a_lost_one_shows(connect, layer, configure):
    """Messages overtake each other, and one is lost."""
    configure(CHANGE_INTERVAL=0)
    ann = await connect(AsyncToldChat, "room")
    group_send, kept = layer.group_send, []

    async def keep(group, message):
        if message.get("type") != "groups.change":
            return await group_send(group, message)
        kept.append((group, message))

    layer.group_send = keep
    others = [await connect(AsyncToldChat, "room") for _ in range(4)]
    await aeventually(lambda: len(kept) == 4)
    del layer.group_send
    for number in (2, 0, 1):
        await group_send(*kept[number])
    await aeventually(lambda: len(ann.joined) == 3)
    ids = [other.id for other in others]
    assert [one.id for _, one in ann.joined] == ids[:3]
    changes = list(ann.changes)
    pairs = zip(changes, changes[1:])
    assert all(later.previous == earlier.revision for earlier, later in pairs)
    await others[0].set_group(None)
    await aeventually(lambda: ann.left)
    assert ann.changes[-1].previous > changes[-1].revision
    with capture_group_events():
        await group_send(*kept[3])
        await aeventually(lambda: len(ann.joined) == 4)

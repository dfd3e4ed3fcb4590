"""Users: their first and last connection in a group, and where they are."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from channels_groups.manager import get_group_manager
from channels_groups.testing import capture_group_events

from ..helpers.eventually import aeventually
from .chats import cases, in_memory

ALL = ("created", "join", "user_join", "leave", "user_leave", "destroyed")


def user(id):
    return get_group_manager().user(id)


@pytest.fixture
def told(layer):
    with capture_group_events(*ALL) as events:
        yield events


def facts(events):
    return [(e.name, e.user_id, e.count, e.user_count) for e in events]


async def test_the_first_and_the_last_connection_of_a_user(chat, connect, told):
    tabs = [await connect(chat, "room", user_id="ann") for _ in range(2)]
    nobody = await connect(chat, "room")
    await tabs[0].set_group(None)
    await nobody.disconnect()
    await tabs[1].disconnect()
    assert facts(told) == [
        ("created", None, None, None),
        ("join", None, 1, 1),
        ("user_join", "ann", 1, 1),
        ("join", None, 2, 1),
        ("join", None, 3, 1),
        ("leave", None, 2, 1),
        ("leave", None, 1, 1),
        ("leave", None, 0, 0),
        ("user_leave", "ann", 0, 0),
        ("destroyed", None, None, None),
    ]
    assert told[2].revision == told[1].revision
    assert told[2].group.name == "room" and told[2].connection is None


async def test_joins_and_leaves_at_once_tell_of_each_user_once(chat, connect, told):
    tabs = [await connect(chat, user_id=f"u{n % 3}") for n in range(9)]
    await asyncio.gather(*(tab.set_group("room") for tab in tabs))
    await asyncio.gather(*(tab.set_group(None) for tab in tabs))
    for name in ("user_join", "user_leave"):
        ids = [event.user_id for event in told if event.name == name]
        assert sorted(ids) == ["u0", "u1", "u2"]


@cases("memory-async", "core-async")
async def test_a_user_who_reloads_neither_comes_nor_goes(
    chat, connect, told, configure
):
    configure(GRACE=1.2)
    ann = await connect(chat, "room", user_id="ann")
    bob = await connect(chat, "room", user_id="bob")
    await ann.disconnect()
    ann = await connect(chat, "room", user_id="ann")
    assert [e.name for e in told].count("user_join") == 2
    await ann.disconnect()
    await bob.set_group(None)
    await aeventually(lambda: told[-1].name, equals="destroyed")
    leaves = [(e.name, e.user_id, e.reason) for e in told[-5:]]
    assert leaves == [
        ("leave", None, "left"),
        ("user_leave", "bob", None),
        ("leave", None, "expired"),
        ("user_leave", "ann", None),
        ("destroyed", None, None),
    ]
    await bob.disconnect()


async def test_where_a_user_is(chat, connect):
    ann = user("ann")
    assert not await ann.aconnected()
    assert await ann.aconnection_count() == 0
    assert [one async for one in ann] == [one async for one in ann.agroups()] == []
    one = await connect(chat, "a", user_id="ann")
    two = await connect(chat, "b", user_id="ann")
    await one.join_group("b")
    bob = await connect(chat, "b", user_id="bob")
    assert await ann.aconnected()
    assert await ann.aconnection_count() == 2
    assert {found.id async for found in ann} == {one.id, two.id}
    assert {found.scope["client"] async for found in ann} == {one, two}
    assert sorted([group.name async for group in ann.agroups()]) == ["a", "b"]
    await one.disconnect()
    await two.set_group(None)
    assert not await ann.aconnected() and await user("bob").aconnected()
    await bob.disconnect()


async def test_writing_to_a_user(chat, connect):
    one = await connect(chat, "a", user_id="ann")
    two = await connect(chat, "b", user_id="ann")
    await one.join_group("b")
    bob = await connect(chat, "b", user_id="bob")
    ann = user("ann")
    await ann.asend("hello")
    await ann.asend_json({"a": 1})
    await ann.asend_event({"type": "chat.note", "text": "x"})
    for tab in (one, two):
        assert await tab.frames(3) == ["hello", '{"a": 1}', "note x"]
    await ann.asend("the other", exclude=[one.consumer.connection])
    await ann.asend("both")
    assert await two.frames(2) == ["the other", "both"]
    assert await one.frames(1) == ["both"]
    assert await bob.has_received_nothing()
    await ann.aclose_all(4001, "logged out")
    assert await one.close_code() == await two.close_code() == (4001, "logged out")
    for tab in (one, two):
        await tab.end()
    assert not await ann.aconnected()
    await ann.asend("nobody")
    assert await bob.has_received_nothing()


@in_memory
async def test_sync_code_finds_users_too(chat, connect):
    one = await connect(chat, "a", user_id="ann")

    def look():
        ann = user("ann")
        ann.send("hello")
        return (
            *(ann.connected(), ann.connection_count()),
            *([group.name for group in ann.groups()], [found.id for found in ann]),
        )

    assert await sync_to_async(look)() == (True, 1, ["a"], [one.id])
    assert await one.receive_from() == "hello"
    await sync_to_async(user("ann").close_all)()
    await one.close_code()
    await one.end()


@in_memory
def test_handles_and_bad_ids():
    ann = user("ann")
    assert ann == user("ann") != user("bob")
    assert len({ann, user("ann")}) == 1
    assert ann != "ann"
    assert repr(ann) == "<GroupUser 'ann' of 'default'>"
    assert user("").user_id == ""
    for bad in (None, 5):
        with pytest.raises(TypeError, match="str"):
            user(bad)
    with pytest.raises(ValueError):
        user("\ud800")


@in_memory
async def test_bad_messages_are_told_at_once(chat):
    ann = user("ann")
    with pytest.raises(ValueError):
        await ann.asend()
    with pytest.raises(ValueError):
        await ann.asend_event({})
    with pytest.raises(ValueError):
        await ann.aclose_all(1)


@in_memory
def test_unknown_events_cannot_be_captured():
    with pytest.raises(ValueError, match="'joined' is not one of created"):
        capture_group_events("joined")

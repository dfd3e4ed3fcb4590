"""channels_groups.testing, as users' tests use it."""

import dataclasses

import pytest

from channels_groups import signals
from channels_groups.manager import get_group
from channels_groups.testing import GroupEvent, capture_group_events

from .chats import cases, in_memory


@cases("memory-async", "core-sync")
async def test_events_are_captured_in_order(chat, connect):
    with capture_group_events() as events:
        ann = await connect(chat, "room", user_id="ann")
        connection = ann.consumer.connection
        await ann.set_group(None)
    group = get_group("room")
    first, last = events[0].revision, events[-1].revision
    assert events == [
        GroupEvent("created", group, None, None, None, None, first),
        GroupEvent("join", group, connection, None, 1, 1, first),
        GroupEvent("leave", group, connection, "left", 0, 0, last),
        GroupEvent("destroyed", group, None, None, None, None, last),
    ]


@in_memory
async def test_the_async_form_captures_the_same(chat, connect):
    async with capture_group_events() as events:
        await connect(chat, "room")
        assert [event.name for event in events] == ["created", "join"]


@in_memory
async def test_what_happens_outside_is_not_captured(chat, connect):
    capture = capture_group_events()
    await connect(chat, "before")
    with capture as events:
        await connect(chat, "within")
    await connect(chat, "after")
    with capture as again:
        await connect(chat, "again")
    assert {event.group.name for event in events} == {"within"}
    assert {event.group.name for event in again} == {"again"}


@in_memory
async def test_captures_nest_and_leave_no_receiver(chat, connect):
    before = len(signals.group_join.receivers)
    with capture_group_events() as outer, capture_group_events() as inner:
        await connect(chat, "room")
    assert [event.name for event in outer] == [event.name for event in inner]
    with pytest.raises(LookupError), capture_group_events():
        raise LookupError
    async with capture_group_events():
        assert len(signals.group_join.receivers) == before + 1
    assert len(signals.group_join.receivers) == before


@in_memory
async def test_an_event_is_frozen(chat, connect):
    with capture_group_events() as events:
        await connect(chat, "room")
    with pytest.raises(dataclasses.FrozenInstanceError):
        events[0].name = "other"
    fields = [field.name for field in dataclasses.fields(GroupEvent)]
    assert fields == [
        *("name", "group", "connection", "reason", "count", "user_count", "revision"),
        "user_id",
    ]

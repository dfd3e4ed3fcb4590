"""The four signals: in which order they come, and what their receivers may do."""

import asyncio
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from channels_groups import signals
from channels_groups.manager import get_group

from ..helpers.eventually import aeventually
from .chats import AsyncChat, async_only, cases, in_memory

ALL = {
    "created": signals.group_created,
    "join": signals.group_join,
    "leave": signals.group_leave,
    "destroyed": signals.group_destroyed,
}


@contextmanager
def received(receiver, *names):
    """Connect a receiver to some signals."""
    for name in names:
        ALL[name].connect(receiver, weak=False)
    try:
        yield
    finally:
        for name in names:
            ALL[name].disconnect(receiver)


async def test_each_signal_comes_once_and_in_order(chat, connect, events):
    ann = await connect(chat, "room", user_id="ann")
    bob = await connect(chat, "room", user_id="bob")
    ann_id, bob_id = ann.id, bob.id
    await ann.set_group(None)
    await bob.disconnect()
    again = await connect(chat, "room", user_id="bob")
    again_id = again.id
    await again.disconnect()
    # Which does not wait for a store that takes long, as one may on a busy machine.
    await aeventually(lambda: len(events) >= 10)
    assert [
        (event.name, event.connection and event.connection.id, event.reason)
        for event in events
    ] == [
        ("created", None, None),
        ("join", ann_id, None),
        ("join", bob_id, None),
        ("leave", ann_id, "left"),
        ("leave", bob_id, "disconnected"),
        ("destroyed", None, None),
        ("created", None, None),
        ("join", again_id, None),
        ("leave", again_id, "disconnected"),
        ("destroyed", None, None),
    ]
    assert [(one.count, one.user_count) for one in events if one.connection] == [
        *((1, 1), (2, 2), (1, 1), (0, 0), (1, 1), (0, 0))
    ]
    changes = [event.revision for event in events if event.connection]
    assert changes == sorted(set(changes))
    assert {event.group for event in events} == {get_group("room")}


async def test_a_storm_is_told_in_order_of_revision(chat, connect, events):
    clients = await asyncio.gather(*(connect(chat) for _ in range(8)))

    async def wander(number, client):
        for step in range(5):
            await client.set_group(f"room{(number + step) % 3}")
        await client.disconnect()

    await asyncio.gather(*(wander(*pair) for pair in enumerate(clients)))
    for group in {event.group for event in events}:
        check_lives([event for event in events if event.group == group])
    assert [event.name for event in events].count("join") == 8 * 5
    assert [event.name for event in events].count("leave") == 8 * 5


def check_lives(events):
    """Check that the signals of one group tell of whole lives, in order."""
    assert [one.revision for one in events] == sorted(one.revision for one in events)
    inside, alive = set(), False
    for event in events:
        if event.name == "created":
            assert not alive and not inside
            alive = True
        elif event.name == "join":
            assert alive and event.connection not in inside
            inside.add(event.connection)
            assert event.count == len(inside)
        elif event.name == "leave":
            inside.remove(event.connection)
            assert event.count == len(inside)
        else:
            assert alive and not inside
            alive = False
    assert not alive


async def test_signals_come_before_set_group_returns(chat, connect):
    seen = []

    async def receive(signal, **kwargs):
        await asyncio.sleep(0.02)
        seen.append(signal)

    with received(receive, *ALL):
        client = await connect(chat)
        await client.set_group("room")
        assert seen == [signals.group_created, signals.group_join]
        await client.set_group(None)
        assert seen[2:] == [signals.group_leave, signals.group_destroyed]


async def test_sync_receivers_run_beside_a_waiting_consumer(chat, connect):
    seen = []

    def receive(signal, group, **kwargs):
        seen.append((signal, group.name, group.count()))

    with received(receive, *ALL):
        client = await connect(chat, "a")
        await client.set_group("b")
        await client.disconnect()
    assert seen == [
        (signals.group_created, "a", 1),
        (signals.group_join, "a", 1),
        (signals.group_created, "b", 1),
        (signals.group_join, "b", 1),
        (signals.group_leave, "a", 0),
        (signals.group_destroyed, "a", 0),
        (signals.group_leave, "b", 0),
        (signals.group_destroyed, "b", 0),
    ]


async def test_a_receiver_that_raises_is_logged_and_changes_nothing(
    chat, connect, caplog
):
    seen = []

    async def fail(**kwargs):
        raise LookupError("a receiver's own mistake")

    def fail_sync(**kwargs):
        raise LookupError("another mistake")

    async def receive(signal, **kwargs):
        seen.append(signal)

    with received(fail, *ALL), received(fail_sync, *ALL), received(receive, *ALL):
        client = await connect(chat, "room")
        assert await get_group("room").acount() == 1
        await client.disconnect()
    assert seen == list(ALL.values())
    assert "a receiver's own mistake" in caplog.text
    assert "another mistake" in caplog.text
    caplog.clear()


WAITS = [
    ("join", "join_group", "room"),
    ("join", "set_group", "room"),
    ("created", "join_group", "room"),
    ("join", "leave_group", "room"),
    ("leave", "join_group", "room"),
    ("destroyed", "set_group", "room"),
]


@pytest.mark.parametrize("signal, verb, name", WAITS)
@cases("memory-async", "core-sync")
async def test_waiting_for_the_same_group_is_an_error_and_no_deadlock(
    chat, connect, signal, verb, name
):
    """Ann's receiver acts for another connection, Bob's."""
    bob = await connect(chat, "room" if verb == "leave_group" else None)
    ann = await connect(chat)
    raised = asyncio.get_running_loop().create_future()

    async def receive(**kwargs):
        if raised.done():
            return
        act = getattr(bob.consumer, verb)
        try:
            if isinstance(bob.consumer, AsyncChat):
                await act(name)
            else:
                await sync_to_async(act)(name)
        except RuntimeError as error:
            raised.set_result(error)
        else:
            raised.set_exception(AssertionError("no error"))

    with received(receive, signal):
        await ann.set_group("room")
        await ann.set_group(None)
        if signal == "destroyed":
            await bob.set_group(None)
        assert "receiver of a signal" in str(await asyncio.wait_for(raised, 5))


@pytest.mark.parametrize("verb", ["join_group", "set_group", "leave_group"])
@pytest.mark.parametrize("name", ["room", "other"])
@in_memory
async def test_a_receiver_cannot_wait_for_the_connection_that_waits_for_it(
    chat, connect, verb, name
):
    """It is in the midst of its own set_group(), which does one thing at a time."""
    client = await connect(chat)
    await client.join_group("other")
    raised = asyncio.get_running_loop().create_future()

    async def receive(**kwargs):
        act = getattr(client.consumer, verb)
        try:
            if isinstance(client.consumer, AsyncChat):
                await act(name)
            else:
                await sync_to_async(act)(name)
        except RuntimeError as error:
            raised.set_result(error)
        else:
            raised.set_exception(AssertionError("no error"))

    with received(receive, "join"):
        await client.set_group("room")
    assert "receiver of a signal" in str(raised.result())
    assert client.consumer.joined_groups == {"room", "other"}


async def test_a_sync_receiver_that_waits_for_the_same_group_gets_an_error(
    chat, connect
):
    bob, ann = await connect(chat), await connect(chat)
    errors = []

    def receive(**kwargs):
        act = bob.consumer.join_group
        if isinstance(bob.consumer, AsyncChat):
            act = async_to_sync(act)
        try:
            act("room")
        except RuntimeError as error:
            errors.append(str(error))

    with received(receive, "join"):
        await ann.set_group("room")
    [error] = errors
    assert "receiver of a signal" in error
    assert await get_group("room").acount() == 1


@async_only
async def test_receivers_of_two_groups_that_wait_for_each_other_get_an_error(
    connect,
):
    one, two = await connect(AsyncChat), await connect(AsyncChat)
    ann = await connect(AsyncChat)
    errors = []

    async def receive(group, connection, **kwargs):
        try:
            if group.name == "a" and connection.id == ann.id:
                await one.consumer.join_group("b")
            elif group.name == "b" and connection.id == one.id:
                await two.consumer.join_group("a")
        except RuntimeError as error:
            errors.append(str(error))

    with received(receive, "join"):
        await ann.set_group("a")
    [error] = errors
    assert "receiver of a signal" in error


@async_only
@pytest.mark.parametrize("verb", ["set_group", "leave_group", "update_info"])
async def test_receivers_that_come_to_wait_for_each_other_get_an_error(connect, verb):
    """Neither has brought the other about: each waits for the other's group."""
    former = None if verb == "set_group" else "b"
    three, four = await connect(AsyncChat, former), await connect(AsyncChat)
    ann, bob = await connect(AsyncChat), await connect(AsyncChat)
    both, errors = asyncio.Semaphore(0), []
    argument = {"n": 1} if verb == "update_info" else "b"

    async def receive(group, connection, **kwargs):
        if connection.id not in (ann.id, bob.id):
            return
        both.release()
        await aeventually(lambda: both._value == 2)
        try:
            if group.name == "a":
                await getattr(three.consumer, verb)(argument)
            else:
                await four.consumer.set_group("a")
        except RuntimeError as error:
            errors.append(str(error))

    with received(receive, "join"):
        joins = ann.set_group("a"), bob.set_group("b")
        await asyncio.wait_for(asyncio.gather(*joins), 10)
    [error] = errors
    assert "receiver of a signal" in error
    await four.set_group("a")
    assert {"b"} >= set(three.consumer.joined_groups)
    assert await get_group("a").acount() == 2


async def test_a_receiver_may_join_another_connection_to_another_group(chat, connect):
    ann, bob = await connect(chat), await connect(chat)

    async def receive(group, **kwargs):
        if group.name == "room":
            act = bob.consumer.join_group
            if isinstance(bob.consumer, AsyncChat):
                await act("annex")
            else:
                await sync_to_async(act)("annex")

    with received(receive, "join"):
        await ann.set_group("room")
    assert bob.consumer.joined_groups == {"annex"}


async def test_a_receiver_may_ask_for_a_move_within_the_same_group(chat, connect):
    client = await connect(chat)

    async def receive(group, connection, **kwargs):
        await connection.aset_group("next")

    def disconnect():
        signals.group_join.disconnect(receive)

    signals.group_join.connect(receive)
    try:
        await client.set_group("room")
        disconnect()
        await aeventually(lambda: client.consumer.group_name, equals="next")
    finally:
        disconnect()
    # It has the next one before it has left the former.
    await aeventually(get_group("room").aexists, equals=False)


@async_only
async def test_a_slow_receiver_does_not_delay_other_groups(connect):
    ann, bob = await connect(AsyncChat), await connect(AsyncChat)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def receive(group, **kwargs):
        if group.name == "slow":
            entered.set()
            await go_on.wait()

    with received(receive, "join"):
        slow = asyncio.create_task(ann.set_group("slow"))
        await entered.wait()
        await bob.set_group("fast")
        assert not slow.done()
        go_on.set()
        await slow


COUNTS = {"count", "user_count", "revision"}
ARGUMENTS = {
    "group_created": {"group", "revision"},
    "group_join": {"group", "connection", *COUNTS},
    "group_user_join": {"group", "user_id", *COUNTS},
    "group_update": {"group", "connection", *COUNTS},
    "group_leave": {"group", "connection", "reason", *COUNTS},
    "group_user_leave": {"group", "user_id", *COUNTS},
    "group_destroyed": {"group", "revision"},
}


@in_memory
async def test_signals_have_the_arguments_that_users_write(chat, connect):
    seen = {}
    receivers = {}
    for name in ARGUMENTS:

        def receive(sender, signal, name=name, **kwargs):
            seen[name] = set(kwargs)

        receivers[name] = receive
        getattr(signals, name).connect(receive)
    try:
        client = await connect(chat, "room", user_id="ann")
        await client.do(lambda consumer: consumer.update_info({"a": 1}))
        await client.set_group(None)
    finally:
        for name, receive in receivers.items():
            getattr(signals, name).disconnect(receive)
    assert seen == ARGUMENTS

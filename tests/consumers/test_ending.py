"""A membership ends with its connection, whatever ended that."""

import asyncio
import threading
from collections import Counter

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from channels_groups.exceptions import (
    ConnectionClosed,
    GroupRejected,
    StoreUnavailable,
)
from channels_groups.manager import GroupManager, get_group, get_group_manager
from channels_groups.node import find_nodes
from channels_groups.stores.base import Incarnation, Join, Member

from ..helpers.eventually import aeventually
from ..helpers.points import Pause, come_between
from .chats import (
    AsyncChat,
    AsyncToldChat,
    Client,
    SyncChat,
    async_only,
    cases,
    in_memory,
)


async def is_empty():
    return await get_group_manager().amembership_count() == 0


def unended(events):
    """Return which beginnings have no end, how often."""
    begun = {"destroyed": "created", "leave": "join"}
    names = [(event.group.name, event.name) for event in events]
    counts = Counter(one for one in names if one[1] not in begun)
    counts.subtract((group, begun[name]) for group, name in names if name in begun)
    return +counts + -counts


def leaves(events):
    return [event.reason for event in events if event.name == "leave"]


async def test_a_client_that_goes_leaves_all_its_groups(chat, connect, events):
    client = await connect(chat, "a")
    await client.join_group("b")
    await client.join_group("c")
    await client.disconnect(1001)
    assert client.ended == [(1001, "a")]
    assert await is_empty()
    assert leaves(events) == ["disconnected"] * 3


async def test_a_consumer_that_closes_leaves(chat, connect, events):
    client = await connect(chat, "room")
    await client.do(lambda consumer: consumer.close(4000))
    assert await client.close_code() == (4000, None)
    await client.disconnect(4000)
    assert client.ended == [(4000, "room")]
    assert leaves(events) == ["disconnected"]


class Failure(Exception):
    pass


def failing(base, method):
    """Return a consumer class whose method fails, of either flavour."""
    if issubclass(base, AsyncChat):

        async def fail(self, *args, **kwargs):
            if method == "connect":
                await self.set_group("room")
            raise Failure

    else:

        def fail(self, *args, **kwargs):
            if method == "connect":
                self.set_group("room")
            raise Failure

    return type("Failing", (base,), {method: fail})


@pytest.mark.parametrize("method", ["connect", "receive", "chat_note", "disconnect"])
async def test_a_consumer_that_fails_leaves(chat, open_client, events, method):
    client = open_client(failing(chat, method), room="room")
    await client.send_input({"type": "websocket.connect"})
    if method != "connect":
        assert (await client.receive_output())["type"] == "websocket.accept"
    if method == "receive":
        await client.send_to(text_data="anything")
    elif method == "chat_note":
        note = {"type": "chat.note", "text": "x"}
        await get_group("room").asend_event(note)
    elif method == "disconnect":
        await client.send_input({"type": "websocket.disconnect", "code": 1000})
    with pytest.raises(Failure):
        await client.wait()
    assert await is_empty()
    assert leaves(events) == ["disconnected"]


async def test_a_message_without_a_handler_ends_the_membership(chat, connect, events):
    client = await connect(chat, "room")
    await get_group("room").asend_event({"type": "no.such.handler"})
    with pytest.raises(ValueError, match="no.such.handler"):
        await client.wait()
    assert await is_empty()
    assert leaves(events) == ["disconnected"]


async def test_a_hook_that_fails_ends_the_membership(told_chat, open_client, connect):
    client = open_client(failing(told_chat, "group_join"), room="room")
    assert (await client.connect())[0]
    other = await connect(told_chat, "room")
    with pytest.raises(Failure):
        await client.wait()
    assert await get_group("room").acount() == 1
    await aeventually(lambda: other.left)


async def test_a_rejected_handshake_leaves_the_groups_entered_before(
    chat, open_client, configure, events
):
    configure(MAX_MEMBERS=1)
    await_first = open_client(chat, room="full")
    assert (await await_first.connect())[0]
    if issubclass(chat, AsyncChat):

        class Greedy(chat):
            async def connect(self):
                await self.join_group("side")
                await self.set_group("full")

    else:

        class Greedy(chat):
            def connect(self):
                self.join_group("side")
                self.set_group("full")

    client = open_client(Greedy)
    assert not (await client.connect())[0]
    await client.send_input({"type": "websocket.disconnect", "code": 1006})
    await client.wait()
    assert not await get_group("side").aexists()


# Cancellation, as by daphne for an application that does not end


@pytest.mark.parametrize("times", [1, 2])
@async_only
async def test_cancelling_the_handshake_at_any_point_leaves_no_ghost(
    open_client, kind, times, told_chat
):
    """Cancel after ever more turns of the event loop, until it gets through."""
    went_through = False
    for turns in range(0, 400, {"memory": 1, "core": 3, "pubsub": 9}[kind]):
        client = open_client(told_chat, room="room")
        client.input_queue.put_nowait({"type": "websocket.connect"})
        application = client.future
        for _ in range(turns):
            await asyncio.sleep(0)
            if not client.output_queue.empty():
                went_through = True
        for _ in range(times):
            application.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([application])
        if turns > 60 and not went_through and turns % 8:
            # Redis answers by the clock and not by turns: let time pass too.
            await asyncio.sleep(0.001)
        if went_through:
            break
    await aeventually(is_empty)


class StuckClient(Client):
    """Its server does not take the close."""

    async def _run(self, scope, receive, send):
        async def stuck(message):
            if message["type"] == "websocket.close":
                await asyncio.Event().wait()
            await send(message)

        return await super()._run(scope, receive, stuck)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("where", ["leave", "goodbye"])
@cases("memory-async", "core-async")
async def test_cancelled_while_the_server_takes_the_close(
    events, monkeypatch, where, times
):
    """Its leave is told, and nothing goes on after the consumer."""
    pause = Pause()
    if where == "leave":
        come_between("before leave", pause, monkeypatch.setattr)
    client = StuckClient(AsyncChat, room="room")
    assert (await client.connect())[0]
    client.consumer._connection.close(4000)
    if where == "leave":
        await asyncio.wait_for(pause.reached.wait(), 5)
    else:
        await aeventually(lambda: events[-1].name == "destroyed")
    for _ in range(times):
        client.future.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([client.future])
    assert client.future.cancelled()
    pause.end()
    await aeventually(lambda: leaves(events), equals=["disconnected"])
    await aeventually(closing, equals=[], timeout=1)


def closing():
    """Return the tasks that close a connection."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("close connection")]


@pytest.mark.parametrize("times", [1, 2])
@async_only
async def test_cancelling_a_move_at_any_time_leaves_no_ghost(
    connect, events, times, told_chat
):
    clients = [await connect(told_chat, "a") for _ in range(12)]
    for number, client in enumerate(clients):
        await client.send_to(text_data="do")
        client._todo.append(
            (lambda consumer: consumer.set_group("b"), asyncio.Future())
        )
        await asyncio.sleep(number / 2000)
        for _ in range(times):
            client.future.cancel()
            await asyncio.sleep(0)
    await asyncio.wait([client.future for client in clients])
    await aeventually(is_empty)
    # The last signals follow the last commit.
    await aeventually(lambda: unended(events), equals=Counter())


@cases("memory-sync", "core-sync", "pubsub-sync")
async def test_cancelling_a_sync_handshake_leaves_no_ghost(open_client, events):
    go_on, late = threading.Event(), []

    class Slow(SyncChat):
        def connect(self):
            self.set_group("room")
            entered.set()
            go_on.wait(10)
            try:
                self.set_group("late")
            except Exception as error:
                late.append(error)
            done.set()

    entered, done = threading.Event(), threading.Event()
    client = open_client(Slow)
    await client.send_input({"type": "websocket.connect"})
    await aeventually(entered.is_set)
    client.future.cancel()
    await aeventually(is_empty)
    go_on.set()
    await aeventually(done.is_set)
    assert [type(error) for error in late] == [ConnectionClosed]
    assert {event.group.name for event in events} == {"room"}
    await asyncio.wait([client.future])


async def test_a_late_set_group_in_a_thread_is_refused(chat, connect):
    client = await connect(chat, "room")
    consumer = client.consumer
    await client.disconnect()

    def act(verb, name):
        method = getattr(consumer, verb)
        if issubclass(chat, AsyncChat):
            method = async_to_sync(method)
        return method(name)

    for verb in ("set_group", "join_group"):
        with pytest.raises(ConnectionClosed):
            await sync_to_async(act)(verb, "late")
    assert await is_empty()


class SlowPolicy(GroupManager):
    entered: asyncio.Event
    go_on: asyncio.Event

    async def aget_group(self, name, connection):
        if name == "slow":
            self.entered.set()
            await self.go_on.wait()
        return self.group(name)


@async_only
async def test_a_connection_that_ends_while_the_manager_thinks_is_not_joined(
    connect, configure
):
    configure(MANAGER=f"{__name__}.SlowPolicy")
    SlowPolicy.entered, SlowPolicy.go_on = asyncio.Event(), asyncio.Event()
    client = await connect(AsyncChat, "room")
    moving = asyncio.create_task(client.consumer.set_group("slow"))
    await SlowPolicy.entered.wait()
    await client.disconnect()
    SlowPolicy.go_on.set()
    with pytest.raises(ConnectionClosed):
        await moving
    assert await is_empty()


@cases("memory-async", "core-async")
async def test_a_connection_that_ends_while_room_is_made_is_not_joined(
    connect, configure, events
):
    """The group is full with a dead process' member, who is evicted first."""
    configure(MAX_MEMBERS=1)
    client = await connect(AsyncChat, "other")
    store = get_group_manager().store
    dead = Incarnation("dead", "specific.dead!channel")
    await store.register(0, dead, "", 0.01)
    ghost = Member("ghost", "specific.ghost!channel", None, {}, 0.0)
    await store.commit(0, dead, 1, [Join("room", ghost)], {"room": []})
    await store.forget(dead)
    await aeventually(lambda: get_group("room").acount(), equals=0)
    moving = asyncio.create_task(client.consumer.set_group("room"))
    for _ in range(50):  # Long enough for the store to have said that it is full.
        await asyncio.sleep(0.001)
    await client.disconnect()
    with pytest.raises((ConnectionClosed, GroupRejected)):
        await moving
    assert await is_empty()
    keeper = await connect(AsyncChat, "elsewhere")
    await aeventually(lambda: [one for one in events if one.reason == "lost"])
    await keeper.disconnect()


@cases("memory-async", "core-async", "pubsub-async")
async def test_who_is_kept_out_by_the_dead_gets_in(connect, configure, events):
    configure(MAX_MEMBERS=1)
    client = await connect(AsyncChat, "other")
    store = get_group_manager().store
    dead = Incarnation("dead", "specific.dead!channel")
    await store.register(0, dead, "", 0.01)
    ghost = Member("ghost", "specific.ghost!channel", "user", {}, 0.0)
    await store.commit(0, dead, 1, [Join("room", ghost)], {"room": []})
    await aeventually(lambda: get_group("room").acount(), equals=0)
    await store.forget(dead)
    group = await client.set_group("room")
    assert await group.acount() == 1
    told = [(one.name, one.reason) for one in events if one.group == group]
    assert told == [
        *(("leave", "lost"), ("destroyed", None), ("created", None), ("join", None))
    ]


# Nothing is left, and everything begins again


async def test_the_next_connection_begins_again(chat, connect, events):
    for _ in range(5):
        client = await connect(chat, "room")
        await client.disconnect()
    names = [event.name for event in events]
    assert names == ["created", "join", "leave", "destroyed"] * 5


@async_only
async def test_connections_that_come_as_the_last_one_goes(connect, events):
    async def visit():
        client = await connect(AsyncChat, "room")
        await client.disconnect()

    for _ in range(5):
        await asyncio.gather(visit(), visit())
    assert await is_empty()
    assert leaves(events) == ["disconnected"] * 10


@in_memory
async def test_who_connects_as_the_last_one_goes_meets_no_node_that_closes(
    chat, connect
):
    client = await connect(chat, "room")
    [node] = find_nodes("default")
    found = []

    class Connections(dict):
        def pop(self, *args):
            # The next thing to run, before any task that is made now.
            node.loop.call_soon(lambda: found.append(find_nodes("default")))
            return super().pop(*args)

    node.connections = Connections(node.connections)
    await client.disconnect()
    assert found == [[]]


async def test_a_consumer_that_enters_nothing_costs_nothing(chat, connect, events):
    client = await connect(chat)
    await client.disconnect()
    assert client.ended == [(1000, None)]
    assert events == []


@in_memory
async def test_a_connection_without_a_layer_is_an_error_that_names_it(
    chat, settings, open_client
):
    from django.core.exceptions import ImproperlyConfigured

    client = open_client(type("Other", (chat,), {"channel_layer_alias": "nowhere"}))
    await client.send_input({"type": "websocket.connect"})
    with pytest.raises(ImproperlyConfigured, match="nowhere"):
        await client.wait()


@async_only
async def test_many_groups_are_left_at_once(events):
    client = Client(AsyncToldChat, room="room0")
    assert (await client.connect())[0]
    for number in range(1, 25):
        await client.consumer.join_group(f"room{number}")
    await client.disconnect()
    assert await is_empty()
    assert leaves(events) == ["disconnected"] * 25


@async_only
async def test_another_event_loop_is_refused(chat, connect):
    """async_to_sync() makes one in a thread that Channels knows nothing of."""
    client = await connect(chat, "room")
    raised = []

    def move():
        try:
            async_to_sync(client.consumer.set_group)("elsewhere")
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=move)
    thread.start()
    await aeventually(lambda: not thread.is_alive())
    assert "event loop" in raised[0]
    assert client.consumer.group_name == "room"


@cases("memory-async")
async def test_a_late_renewal_says_nothing_of_a_new_identity(
    chat, connect, events, monkeypatch
):
    client = await connect(chat, "room")
    writer = client.consumer._node._shards[0]._writer
    store, reached, go_on = (
        client.consumer._node.store,
        asyncio.Event(),
        asyncio.Event(),
    )
    original = store.renew

    async def renew(shard, node, *args):
        renewal = await original(shard, node, *args)
        if node is not first:
            return renewal
        reached.set()
        await go_on.wait()
        return renewal._replace(state="lost")

    first = writer.incarnation
    monkeypatch.setattr(store, "renew", renew)
    renewing = asyncio.create_task(writer.lease.renew())
    await asyncio.wait_for(reached.wait(), 10)
    monkeypatch.setattr(writer, "incarnation", first._replace())
    go_on.set()
    assert (await renewing).state == "lost"
    assert writer._disowned == ""
    monkeypatch.setattr(writer, "incarnation", None)
    with pytest.raises(StoreUnavailable):
        await writer.lease.renew()
    monkeypatch.undo()

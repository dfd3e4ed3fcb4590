"""What groups and connections send, and who gets it."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.testing import ApplicationCommunicator

from channels_groups import names
from channels_groups.consumers import AsyncGroupConsumerMixin
from channels_groups.exceptions import ConnectionClosed, StoreUnavailable
from channels_groups.manager import get_group, get_group_manager
from channels_groups.node import find_nodes

from ..helpers.eventually import aeventually
from .chats import AsyncChat, Client, async_only, cases, in_memory


async def get(client, name="room"):
    return await get_group(name).aget(client.id)


async def test_a_group_writes_to_every_member_and_to_nobody_else(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    cat, dan = await connect(chat, "other"), await connect(chat)
    group = get_group("room")
    await group.asend("text")
    await group.asend(bytes_data=b"\x00bytes")
    await group.asend(text_data="")
    await group.asend_json({"a": ["Zoë", None]})
    for client in (ann, bob):
        assert await client.frames(4) == [
            *("text", b"\x00bytes", "", '{"a": ["Zo\\u00eb", null]}')
        ]
    await get_group("empty").asend("nobody hears this")
    for client in (ann, bob, cat, dan):
        assert await client.has_received_nothing()


async def test_the_sync_twins_write_too(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    group, other = get_group("room"), await get(bob)

    def write():
        group.send("text", exclude=[ann.id])
        group.send_json([1], exclude=[other])
        group.send_event({"type": "chat.note", "text": "hi"})
        other.send("to bob")
        other.send_json([2])
        other.send_event({"type": "chat.note", "text": "bob"})

    await sync_to_async(write)()
    assert sorted(await ann.frames(2)) == ["[1]", "note hi"]
    assert sorted(await bob.frames(5)) == [
        *("[2]", "note bob", "note hi", "text", "to bob")
    ]


async def test_exclude_takes_connections_and_ids(chat, connect):
    ann, bob, cat = [await connect(chat, "room") for _ in range(3)]
    group = get_group("room")
    await group.asend("1", exclude=[await get(ann), bob.id])
    await group.asend_json("2", exclude=(one for one in [ann.consumer.connection]))
    await group.asend_event({"type": "chat.note", "text": "3"}, exclude={bob.id})
    await group.asend("4")
    assert sorted(await ann.frames(2)) == ["4", "note 3"]
    assert sorted(await bob.frames(2)) == ['"2"', "4"]
    assert sorted(await cat.frames(4)) == ['"2"', "1", "4", "note 3"]


@in_memory
async def test_exclude_takes_no_single_id(chat, connect):
    ann = await connect(chat, "room")
    for one in (ann.id, await get(ann)):
        with pytest.raises(TypeError, match="exclude"):
            await get_group("room").asend("x", exclude=one)


async def test_an_event_reaches_every_members_handler(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    await get_group("room").asend_event({"type": "chat.note", "text": "hi"})
    assert await ann.receive_from() == await bob.receive_from() == "note hi"


BAD_PAYLOADS = [
    ((), {}, ValueError),
    (("a", b"b"), {}, ValueError),
    ((b"bytes",), {}, TypeError),
    ((5,), {}, TypeError),
    ((), {"bytes_data": "text"}, TypeError),
]


@in_memory
@pytest.mark.parametrize("args, kwargs, error", BAD_PAYLOADS)
async def test_a_send_needs_one_payload(chat, connect, args, kwargs, error):
    ann = await connect(chat, "room")
    connection = await get(ann)
    for send in (get_group("room").asend, connection.asend):
        with pytest.raises(error):
            await send(*args, **kwargs)
    assert await ann.has_received_nothing()


@in_memory
@pytest.mark.parametrize("event", [{}, {"type": 5}, {"text": "x"}, "chat.note", None])
async def test_an_event_needs_a_type(chat, connect, event):
    ann = await connect(chat, "room")
    connection = await get(ann)
    for send in (get_group("room").asend_event, connection.asend_event):
        with pytest.raises(ValueError, match="type"):
            await send(event)


async def test_a_connection_is_written_to_alone(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    connection = await get(bob)
    await connection.asend("text")
    await connection.asend(bytes_data=b"bytes")
    await connection.asend_json({"n": 1})
    assert await bob.frames(3) == ["text", b"bytes", '{"n": 1}']
    assert await ann.has_received_nothing()


async def test_messages_of_a_group_keep_their_order(chat, connect):
    clients = [await connect(chat, "room") for _ in range(3)]
    for number in range(50):
        await get_group("room").asend(str(number))
    for client in clients:
        assert await client.frames(50) == [str(number) for number in range(50)]


@cases("core-async", "pubsub-async")
async def test_no_message_is_lost_while_others_come_and_go(connect):
    """Whoever leaves must not take along what was for those who stay."""
    stays = await connect(AsyncChat, "room")
    others = [await connect(AsyncChat) for _ in range(4)]

    async def come_and_go(number, client):
        for _ in range(15):
            await client.set_group(f"room{number}")
            await client.set_group(None)

    churning = asyncio.gather(*(come_and_go(*pair) for pair in enumerate(others)))
    sent = 0
    while not churning.done():
        await get_group("room").asend(str(sent))
        sent += 1
        await asyncio.sleep(0.002)
    await churning
    assert await stays.frames(sent) == [str(number) for number in range(sent)]


@cases("core-async", "pubsub-async")
async def test_no_message_is_lost_while_others_connect_and_disconnect(connect):
    stays = await connect(AsyncChat, "room")

    async def visit():
        for _ in range(10):
            client = await connect(AsyncChat)
            await client.disconnect()

    visiting = asyncio.gather(visit(), visit())
    sent = 0
    while not visiting.done():
        await get_group("room").asend(str(sent))
        sent += 1
        await asyncio.sleep(0.002)
    await visiting
    assert await stays.frames(sent) == [str(number) for number in range(sent)]


async def test_in_the_store_means_it_receives(chat, connect):
    """Who has been seen as a member gets what is sent from then on."""
    client = await connect(chat)
    group = get_group("room")

    async def send_when_seen():
        await aeventually(group.acount, equals=1)
        await group.asend("seen")

    sending = asyncio.create_task(send_when_seen())
    await client.set_group("room")
    await group.asend("returned")
    await sending
    assert set(await client.frames(2)) == {"seen", "returned"}


async def test_who_moved_gets_the_new_groups_messages_only(chat, connect):
    client = await connect(chat, "a")
    await client.set_group("b")
    await get_group("a").asend("old")
    await get_group("b").asend("new")
    assert await client.receive_from() == "new"
    assert await client.has_received_nothing()


async def test_who_was_rejected_receives_nothing(chat, connect, configure):
    configure(MAX_MEMBERS=1)
    ann, bob = await connect(chat, "room"), await connect(chat)

    async def shout():
        while True:
            await get_group("room").asend("psst")
            await asyncio.sleep(0)

    shouting = asyncio.create_task(shout())
    for _ in range(10):
        with pytest.raises(Exception, match="full"):
            await bob.set_group("room")
    shouting.cancel()
    await asyncio.wait([shouting])
    assert await ann.receive_from() == "psst"
    assert await bob.has_received_nothing()


@pytest.fixture
def store_answers(monkeypatch, layer):
    """Return an event: while it is not set, the store carries out and is silent."""
    answers, store = asyncio.Event(), type(get_group_manager().store)
    answers.set()
    commit = store.commit

    async def commit_and_wait(*args, **kwargs):
        result = await commit(*args, **kwargs)
        try:
            await asyncio.wait_for(answers.wait(), 1)
        except asyncio.TimeoutError as error:
            raise StoreUnavailable("Deliberately.") from error
        return result

    monkeypatch.setattr(store, "commit", commit_and_wait)
    yield answers
    answers.set()


async def give_up_soon(client, name):
    """Let a client's set_group() be cancelled."""
    with pytest.raises(asyncio.TimeoutError):
        await client.do(lambda one: asyncio.wait_for(one.set_group(name), 0.1))


@async_only
async def test_who_was_not_admitted_and_has_given_up_receives_nothing(
    connect, configure, store_answers
):
    """Though the store has yet to say so; and it is no member that is closed."""
    configure(MAX_MEMBERS=1)
    ann, bob = await connect(AsyncChat, "room"), await connect(AsyncChat)
    store_answers.clear()
    await give_up_soon(bob, "room")
    await get_group("room").asend("psst")
    await get_group("room").asend_event({"type": "chat.note", "text": "psst"})
    assert await ann.frames(2) == ["psst", "note psst"]
    await get_group("room").aclose_all(4001)
    assert await ann.close_code() == (4001, None)
    assert await bob.has_received_nothing()
    store_answers.set()
    await bob.set_group("other")
    assert bob.output_queue.empty()


@async_only
async def test_who_has_given_up_waiting_to_leave_receives_nothing(
    connect, store_answers
):
    ann, bob = await connect(AsyncChat, "room"), await connect(AsyncChat, "room")
    store_answers.clear()
    await give_up_soon(bob, None)
    await get_group("room").asend("psst")
    assert await ann.receive_from() == "psst"
    assert await bob.has_received_nothing()
    store_answers.set()
    await aeventually(get_group("room").acount, equals=1)


@cases("core-async", "pubsub-async")
async def test_who_leaves_receives_until_the_store_has_said_so(connect, store_answers):
    """Or until it waits no more for that."""
    ann, bob = await connect(AsyncChat, "room"), await connect(AsyncChat, "room")
    store_answers.clear()
    leaving = asyncio.create_task(bob.consumer.set_group(None))
    await asyncio.sleep(0.05)
    await get_group("room").asend("before")
    assert await ann.receive_from() == await bob.receive_from() == "before"
    await leaving
    await get_group("room").asend("after")
    assert await ann.receive_from() == "after"
    assert await bob.has_received_nothing()
    store_answers.set()
    await aeventually(get_group("room").acount, equals=1)


@async_only
async def test_a_join_that_the_connection_does_not_live_to_see(connect, store_answers):
    """It ends while a task of its own still waits."""
    bob = await connect(AsyncChat)
    store_answers.clear()
    joining = asyncio.create_task(bob.consumer.set_group("room"))
    await aeventually(get_group("room").acount, equals=1)
    await bob.send_input({"type": "websocket.disconnect", "code": 1000})
    await aeventually(lambda: bob.consumer._connection.ended)
    store_answers.set()
    with pytest.raises(ConnectionClosed):
        await joining
    await bob.wait()
    assert not await get_group("room").aexists()


async def test_what_comes_before_the_accept_is_held_until_then(flavour, open_client):
    from .chats import SyncChat

    entered, accept = asyncio.Event(), asyncio.Event()

    if flavour == "async":

        class Slow(AsyncChat):
            async def connect(self):
                await self.set_group("room")
                entered.set()
                await accept.wait()
                await self.accept()

    else:
        loop = asyncio.get_running_loop()

        class Slow(SyncChat):
            def connect(self):
                self.set_group("room")
                loop.call_soon_threadsafe(entered.set)
                asyncio.run_coroutine_threadsafe(accept.wait(), loop).result()
                self.accept()

    client = open_client(Slow)
    await client.send_input({"type": "websocket.connect"})
    await asyncio.wait_for(entered.wait(), 5)
    await get_group("room").asend("early")
    await (await get(client)).asend("to you")
    await asyncio.sleep(0.1)
    assert client.output_queue.empty()
    accept.set()
    assert (await client.receive_output())["type"] == "websocket.accept"
    assert set(await client.frames(2)) == {"early", "to you"}


# Other code's messages


async def test_other_codes_group_send_reaches_the_members(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    message = {"type": "chat.note", "text": "plain"}
    await get_channel_layer().group_send("room", message)
    assert await ann.receive_from() == await bob.receive_from() == "note plain"
    await ann.set_group(None)
    await get_channel_layer().group_send("room", message)
    assert await bob.receive_from() == "note plain"
    assert await ann.has_received_nothing()


async def test_names_the_layer_refuses_have_a_plain_name(chat, connect):
    ann = await connect(chat, "Zürich ☃")
    message = {"type": "chat.note", "text": "plain"}
    await get_channel_layer().group_send(names.plain_name("Zürich ☃"), message)
    assert await ann.receive_from() == "note plain"


async def test_plain_group_send_may_be_off(chat, connect, configure):
    configure(PLAIN_GROUP_SEND=False)
    ann = await connect(chat, "room")
    await get_channel_layer().group_send("room", {"type": "chat.note", "text": "x"})
    await get_group("room").asend("after")
    assert await ann.receive_from() == "after"
    await asyncio.sleep(0.05)
    assert await ann.has_received_nothing()


async def test_a_foreign_consumer_in_a_layer_group_of_the_same_name_is_safe(
    told_chat, connect, open_client
):
    class Foreign(AsyncWebsocketConsumer):
        groups = ["room"]

        async def dispatch(self, message):
            client.seen.append(message["type"])
            await super().dispatch(message)

        async def chat_note(self, message):
            await self.send(text_data=message["text"])

    client = open_client(Foreign)
    client.seen = []
    assert (await client.connect())[0]
    member = await connect(told_chat, "room")
    other = await connect(told_chat, "room")
    await get_group("room").asend("hello")
    await get_group("room").asend_event({"type": "chat.note", "text": "event"})
    assert set(await member.frames(2)) == {"hello", "note event"}
    await aeventually(lambda: member.joined)
    await other.disconnect()
    await aeventually(lambda: member.left)
    await get_group("room").aclose_all()
    await member.close_code()
    await member.wait()
    await get_channel_layer().group_send("room", {"type": "chat.note", "text": "own"})
    assert await client.receive_from() == "own"
    assert client.seen == ["websocket.connect", "chat.note"]


# Closing


async def test_close_all_closes_the_members(chat, connect, events):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    cat = await connect(chat, "other")
    await get_group("room").aclose_all(4001, "bye")
    for client in (ann, bob):
        assert await client.close_code() == (4001, "bye")
        await client.wait()
        assert client.ended == [(4001, "room")]
    assert not await get_group("room").aexists()
    assert await cat.has_received_nothing()
    leaves = [event.reason for event in events if event.name == "leave"]
    assert leaves == ["disconnected"] * 2


async def test_a_connection_is_closed_alone(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    await (await get(ann)).aclose()
    code, reason = await ann.close_code()
    assert (code or 1000, reason or "") == (1000, "")
    await ann.wait()
    assert ann.ended == [(1000, "room")]
    assert await get_group("room").acount() == 1
    await sync_to_async((await get(bob)).close)(4000, "x" * 123)
    assert await bob.close_code() == (4000, "x" * 123)


async def test_the_manager_closes_everybody(chat, connect):
    clients = [await connect(chat, room) for room in ("a", "b", None)]
    await get_group_manager().aclose_all(code=1000, reason="maintenance")
    for client in clients:
        assert await client.close_code() == (1000, "maintenance")
        await client.wait()
    assert await get_group_manager().amembership_count() == 0


@pytest.mark.parametrize("twin", ["aclose_all", "close_all"])
async def test_the_manager_closes_everybody_of_this_process(chat, connect, twin):
    clients = [await connect(chat, room) for room in ("a", None)]
    close_all = getattr(get_group_manager(), twin)
    if twin == "aclose_all":
        await close_all(3000, local=True)
    else:
        await sync_to_async(close_all)(3000, local=True)
    for client in clients:
        assert (await client.close_code())[0] == 3000


async def test_close_all_before_the_accept_refuses_the_handshake(open_client):
    go_on = asyncio.Event()

    class Slow(AsyncChat):
        async def connect(self):
            await self.set_group("room")
            await go_on.wait()
            await self.accept()

    client = open_client(Slow)
    await client.send_input({"type": "websocket.connect"})
    await aeventually(get_group("room").acount, equals=1)
    await get_group("room").aclose_all()
    assert (await client.receive_output())["type"] == "websocket.close"
    go_on.set()
    await client.wait()
    assert client.output_queue.empty()
    assert not await get_group("room").aexists()


BAD_CLOSES = [
    ((1001, None), ValueError, "1001"),
    ((999, None), ValueError, "999"),
    ((2999, None), ValueError, "2999"),
    ((5000, None), ValueError, "5000"),
    ((1006, None), ValueError, "1006"),
    ((-1, None), ValueError, "-1"),
    (("1000", None), TypeError, "str"),
    ((True, None), TypeError, "bool"),
    ((1000.0, None), TypeError, "float"),
    ((None, "é" * 62), ValueError, "123"),
    ((1000, "x" * 124), ValueError, "123"),
    ((1000, b"bytes"), TypeError, "bytes"),
    ((1000, "\ud800"), ValueError, "surrogates"),
]


@in_memory
@pytest.mark.parametrize("args, error, text", BAD_CLOSES, ids=range(len(BAD_CLOSES)))
async def test_a_bad_code_or_reason_closes_nothing(chat, connect, args, error, text):
    ann = await connect(chat, "room")
    manager = get_group_manager()
    for close in (
        get_group("room").aclose_all,
        manager.aclose_all,
        lambda *args: manager.aclose_all(*args, local=True),
        (await get(ann)).aclose,
    ):
        with pytest.raises(error, match=text):
            await close(*args)
    assert await ann.has_received_nothing()
    assert await get_group("room").acount() == 1


@in_memory
@pytest.mark.parametrize("code", [None, 1000, 3000, 4999])
async def test_good_codes(chat, connect, code):
    ann = await connect(chat, "room")
    await get_group("room").aclose_all(code)
    assert ((await ann.close_code())[0] or 1000) == (code or 1000)


async def test_writing_to_who_is_gone_is_no_error(kind, chat, connect):
    ann = await connect(chat, "room")
    connection = await get(ann)
    await ann.disconnect()
    for act in (
        connection.asend("x"),
        connection.aclose(),
        get_group("room").asend(""),
    ):
        await act
    if kind != "pubsub":  # Which keeps nothing for nobody.
        layer = get_channel_layer()
        kinds = [(await layer.receive(connection.channel_name))["type"] for _ in "12"]
        assert kinds == ["groups.send", "groups.close"]


# Moving others


async def test_a_connection_is_moved_from_outside(chat, connect):
    ann, bob = await connect(chat, "room"), await connect(chat, "room")
    connection = await get(bob)
    await connection.aset_group("next")
    await aeventually(lambda: bob.consumer.group_name, equals="next")
    assert ann.consumer.group_name == "room"
    await sync_to_async(connection.set_group)(None)
    await aeventually(lambda: bob.consumer.group_name, equals=None)


async def test_a_refused_move_is_logged_where_it_is_refused(
    chat, connect, configure, caplog
):
    configure(MAX_MEMBERS=1)
    _, bob = await connect(chat, "room"), await connect(chat, "other")
    caplog.set_level("INFO", "channels_groups")
    await (await get(bob, "other")).aset_group("room")
    await aeventually(lambda: "refused" in caplog.text)
    assert bob.id in caplog.text and "full" in caplog.text
    assert bob.consumer.group_name == "other"
    assert await bob.has_received_nothing()


@in_memory
async def test_a_bad_move_is_refused_at_once(chat, connect):
    ann = await connect(chat, "room")
    connection = await get(ann)
    for name, error in [("", ValueError), (5, TypeError), ("x" * 1001, ValueError)]:
        with pytest.raises(error):
            await connection.aset_group(name)
    assert ann.consumer.group_name == "room"


async def test_who_is_known_to_be_gone_cannot_be_moved(chat, connect):
    ann = await connect(chat, "room")
    connection = await get(ann)
    await ann.disconnect()
    with pytest.raises(ConnectionClosed):
        await connection.aset_group("next")
    with pytest.raises(ConnectionClosed):
        await sync_to_async(connection.set_group)(None)


# A layer that forgets


@pytest.mark.parametrize("layer_config", [{"group_expiry": 2}])
@cases("memory-async", "core-async")
async def test_a_short_group_expiry_deafens_nobody(connect, layer_config):
    ann, bob = await connect(AsyncChat, "room"), await connect(AsyncChat, "Zürich")
    for _ in range(9):
        await asyncio.sleep(0.5)  # It is time itself that is tested.
        await get_group("room").asend("ping")
        await get_group("Zürich").asend("ping")
    message = {"type": "chat.note", "text": "plain"}
    await get_channel_layer().group_send("room", message)
    assert await ann.frames(9) == ["ping"] * 9
    assert await bob.frames(9) == ["ping"] * 9
    assert await ann.receive_from() == "note plain"


# Slow clients


class SlowClient(Client):
    """A client that does not read: the server's send waits, as uvicorn's does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reads = asyncio.Event()

    async def _run(self, scope, receive, send):
        async def send_slowly(message):
            if message["type"] != "websocket.accept":
                await self.reads.wait()
            await send(message)

        return await super()._run(scope, receive, send_slowly)


@async_only
async def test_a_slow_client_delays_nobody_and_is_closed_past_its_outbox(
    connect, configure, caplog
):
    caplog.set_level("INFO", "channels_groups")
    configure(OUTBOX=10)
    slow = SlowClient(AsyncChat, room="room")
    assert (await slow.connect())[0]
    ann = await connect(AsyncChat, "room")
    for number in range(10):
        await get_group("room").asend(str(number))
    assert await ann.frames(10) == [str(number) for number in range(10)]
    assert await get_group("room").acount() == 2
    for number in range(10, 15):
        await get_group("room").asend(str(number))
    assert await ann.frames(5) == [str(number) for number in range(10, 15)]
    await aeventually(get_group("room").acount, equals=1)
    assert "10 messages behind" in caplog.text
    # It is told why if it reads again.
    await aeventually(lambda: not find_nodes("default")[0].connections.get(slow.id))
    assert not slow.future.done()
    slow.reads.set()
    assert await slow.close_code() == (1013, "too slow")
    await slow.end()


@async_only
async def test_a_client_that_reads_again_misses_nothing(connect):
    slow = SlowClient(AsyncChat, room="room")
    assert (await slow.connect())[0]
    for number in range(20):
        await get_group("room").asend(str(number))
    slow.reads.set()
    assert await slow.frames(20) == [str(number) for number in range(20)]
    await slow.end()


# Not only WebSockets


@async_only
async def test_an_http_stream_may_be_a_member():
    class Stream(AsyncGroupConsumerMixin, AsyncHttpConsumer):
        async def http_request(self, message):  # Which would end after handle().
            await self.handle(message["body"])

        async def handle(self, body):
            await self.send_headers(headers=[(b"Content-Type", b"text/plain")])
            await self.send_body(b"", more_body=True)
            await self.set_group("room")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    stream = ApplicationCommunicator(Stream(), scope)
    await stream.send_input({"type": "http.request", "body": b""})
    await aeventually(get_group("room").acount, equals=1)
    await get_group("room").asend("hello")
    await get_group("room").asend(bytes_data=b"")
    await get_group("room").asend(bytes_data=b"bytes")
    bodies = []
    while b"bytes" not in bodies:
        output = await stream.receive_output(5)
        bodies.append(output.get("body"))
    assert b"hello" in bodies
    await get_group("room").aclose_all()
    await stream.wait(5)
    assert not await get_group("room").aexists()

"""One live connection: what it sends, holds back and takes in."""

import asyncio

import pytest

from channels_groups.connection import LocalConnection, start, to_frame
from channels_groups.exceptions import ConnectionClosed
from channels_groups.groups import GroupChange
from channels_groups.manager import get_group_manager
from channels_groups.messages import close_message

from ..helpers.eventually import aeventually
from ..helpers.timeouts import timeout

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}


class Server:
    """A server's side: `send` waits while the client does not read."""

    def __init__(self):
        self.sent = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.error = None

    async def send(self, message):
        if message["type"] == "websocket.send":
            await self.reads.wait()
            if self.error:
                raise self.error
        self.sent.append(message)

    @property
    def texts(self):
        return [one["text"] for one in self.sent if one["type"] == "websocket.send"]


def frame(text):
    return to_frame({"text": text})


@pytest.fixture
def server():
    return Server()


class Layer(asyncio.Queue):
    """A channel layer with one channel, that of a consumer."""

    channel_name = "chat"

    async def receive(self, channel):
        return await self.get()


def connect(send):
    """Return a connection with an outbox of three."""
    layer = Layer()
    connection = LocalConnection(layer, {"type": "websocket"}, send, 3)
    connection.listen(layer, beside=False)
    return connection


async def write(connection, texts):
    """Write a frame of each letter as its group does, in a receiver's task."""
    for text in texts:
        connection.consumer.put_nowait({"type": "groups.send", "text": text})
    while not connection.consumer.empty():
        await asyncio.sleep(0)


async def end(connection):
    connection.ended = True
    await connection.finish()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def connection(server):
    """An accepted connection."""
    connection = connect(server.send)
    await connection.send(ACCEPT)
    yield connection
    await end(connection)


async def test_a_frame_goes_at_once_without_a_task(connection, server):
    tasks = asyncio.all_tasks()
    await write(connection, "ab")
    assert server.texts == ["a", "b"]
    assert asyncio.all_tasks() == tasks


async def test_frames_wait_for_a_slow_client_in_order(connection, server):
    server.reads.clear()
    await write(connection, "abcd")
    await asyncio.sleep(0)
    assert server.texts == []
    server.reads.set()
    await aeventually(lambda: server.texts, equals=list("abcd"))
    await write(connection, "e")
    await aeventually(lambda: server.texts, equals=list("abcde"))


async def test_frames_written_from_elsewhere_go_in_order_too(connection, server):
    server.reads.clear()
    await write(connection, "a")
    connection.write_later(frame("b"))
    server.reads.set()
    await aeventually(lambda: server.texts, equals=["a", "b"])
    connection.write_later(frame("c"))
    await write(connection, "d")
    await aeventually(lambda: server.texts, equals=list("abcd"))


async def test_a_client_too_slow_is_closed_and_told(connection, server, caplog):
    caplog.set_level("INFO", "channels_groups")
    server.reads.clear()
    await write(connection, "abcde")
    message = await connection.receive()
    assert message == {"type": "websocket.disconnect", "code": 1013}
    close = {"type": "websocket.close", "code": 1013, "reason": "too slow"}
    await aeventually(lambda: close in server.sent)
    assert connection.id in caplog.text and "3 messages behind" in caplog.text
    await write(connection, "f")
    assert server.texts == []


async def test_a_slow_client_hears_why_it_is_closed_if_it_reads_in_time(server):
    connection = slow_connection(server)
    connection.close(1013)
    connection.ended = True
    await connection.finish()
    goodbye = asyncio.create_task(connection.say_goodbye())
    await asyncio.sleep(0)
    assert not goodbye.done()
    server.reads.set()
    await asyncio.wait_for(goodbye, 5)
    assert server.sent[-1] == {"type": "websocket.close", "code": 1013}


@pytest.mark.parametrize("code, sent", [(1013, 4013), (4000, None), (None, None)])
async def test_a_code_that_the_server_refuses_is_another_one(code, sent, server):
    """As daphne, which raises for 1013 and leaves the connection open."""

    async def send(message):
        if message.get("code") == code:
            raise Exception(f"invalid close code {code}")
        await server.send(message)

    connection = LocalConnection(None, {"type": "websocket"}, send, 3)
    connection.close(code, "why")
    await connection.say_goodbye()
    close = {"type": "websocket.close", "code": sent, "reason": "why"}
    assert server.sent == ([close] if sent else [])
    message = await connection.receive()
    assert message == {"type": "websocket.disconnect", "code": code or 1000}


def slow_connection(server):
    """Return a connection of a server whose every send waits, as uvicorn's does."""
    server.reads.clear()

    async def send(message):
        await server.reads.wait()
        await server.send(message)

    return LocalConnection(None, {"type": "websocket"}, send, 3)


async def test_a_consumer_too_slow_is_closed(connection, server, caplog):
    for number in range(4):
        connection.put({"type": "note", "number": number})
    kinds = [(await connection.receive())["type"] for _ in range(4)]
    assert kinds == ["note"] * 3 + ["websocket.disconnect"]
    await aeventually(lambda: server.sent[-1].get("code"), equals=1013)
    assert "its handlers are more than" in caplog.text


async def test_frames_are_held_until_the_accept(server):
    connection = connect(server.send)
    await write(connection, "ab")
    assert server.sent == []
    await connection.send(ACCEPT)
    await aeventually(lambda: server.texts, equals=["a", "b"])
    assert server.sent[0] == ACCEPT
    await write(connection, "c")
    await aeventually(lambda: server.texts, equals=["a", "b", "c"])
    await end(connection)


async def test_what_was_held_for_a_refused_handshake_is_dropped(server):
    connection = connect(server.send)
    await write(connection, "a")
    await connection.send(CLOSE)
    await write(connection, "b")
    await connection.send(ACCEPT)
    await asyncio.sleep(0)
    assert server.sent == [CLOSE]
    await end(connection)


async def test_closing_twice_closes_once(connection, server):
    connection.close(4001, "bye")
    connection.close(4002, "again")
    await connection.send(CLOSE)
    message = await connection.receive()
    assert message == {"type": "websocket.disconnect", "code": 4001}
    await aeventually(lambda: len(server.sent), equals=2)
    close = {"type": "websocket.close", "code": 4001, "reason": "bye"}
    assert server.sent == [ACCEPT, close]


async def test_closing_does_not_wait_for_the_client(server, monkeypatch):
    """One that never reads is given up at last."""
    monkeypatch.setattr("channels_groups.connection.GOODBYE", 0.5)
    connection = slow_connection(server)
    connection.close()
    message = await connection.receive()
    assert message == {"type": "websocket.disconnect", "code": 1000}
    connection.ended = True
    await asyncio.wait_for(connection.finish(), 5)
    await asyncio.wait_for(connection.say_goodbye(), 5)
    assert server.sent == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_server_that_raises_is_no_error_here(connection, server):
    server.error = RuntimeError("the client is gone")
    await write(connection, "a")
    server.reads.clear()
    await write(connection, "b")
    server.reads.set()
    await asyncio.sleep(0.01)
    server.error = None
    await write(connection, "c")
    await aeventually(lambda: server.texts, equals=["c"])


async def test_finishing_ends_what_is_under_way(connection, server):
    server.reads.clear()
    await write(connection, "ab")
    connection.ended = True
    await connection.finish()
    assert server.texts == []
    with pytest.raises(ConnectionClosed):
        connection.check_open()


async def test_messages_to_its_channel_are_told_apart(connection, server):
    connection.take({"type": "groups.send", "text": "a"})
    connection.take({"type": "groups.send", "bytes": b"b"})
    connection.take({"type": "chat.note"})
    connection.take({"type": "groups.close", "code": 4000, "reason": None})
    assert server.sent[1:] == [
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "bytes": b"b"},
    ]
    assert await connection.receive() == {"type": "chat.note"}
    assert (await connection.receive())["code"] == 4000


async def test_receiving_may_be_cancelled_without_a_loss(connection):
    for number in range(5):
        receiving = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        connection.put({"type": "note", "number": number})
        receiving.cancel()
        await asyncio.wait([receiving])
        message = await connection.receive()
        assert message == {"type": "note", "number": number}


async def test_an_ended_connection_takes_nothing_in(connection):
    connection.ended = True
    connection.put({"type": "note"})
    receiving = asyncio.create_task(connection.receive())
    await asyncio.sleep(0.01)
    assert not receiving.done()
    receiving.cancel()
    await asyncio.wait([receiving])


# Changes in the inbox


def change(joined=(), left=(), revision=1, name="room", updated=(), previous=None):
    group = get_group_manager().group(name)
    counts = revision, 0, revision
    previous = revision - 1 if previous is None else previous
    about = tuple(joined), tuple(left), *counts, tuple(updated), previous
    return GroupChange(group, *about)


async def test_changes_that_wait_are_merged(connection):
    connection.tell(change(["a"], revision=1))
    connection.tell(change(["b"], ["a"], revision=2, updated=["x", "y"]))
    connection.tell(change(updated=["x", "b"], revision=3))
    connection.put({"type": "note"})
    connection.tell(change(["c"], revision=4))
    first, note, second = [await connection.receive() for _ in range(3)]
    merged = change(["a", "b"], ["a"], 3, updated=["y", "x", "b"], previous=0)
    assert first["change"] == merged
    assert note["type"] == "note"
    assert second["change"] == change(["c"], revision=4)


@pytest.mark.parametrize(
    "joined, name, revision", [("x", "other", 2), ("a", "room", 2), ("x", "room", 3)]
)
async def test_what_would_lose_its_order_is_not_merged(
    connection, joined, name, revision
):
    """That is another group, one who left and comes back, and a gap."""
    later = change([joined], revision=revision, name=name)
    connection.tell(change([], ["a"], revision=1))
    connection.tell(later)
    assert (await connection.receive())["change"].left == ("a",)
    assert (await connection.receive())["change"] == later


# Sends that are not the server's own


async def test_a_timeout_in_a_slow_send_ends_that_send_only(server):
    """It is bound to the task that the send has begun in."""

    async def send(message):
        await asyncio.wait_for(server.send(message), 0.05)

    await check_that_a_send_times_out(server, send)


async def test_so_does_a_timeout_that_cancels_its_task(server):
    async def send(message):
        async with timeout(0.05):
            await server.send(message)

    await check_that_a_send_times_out(server, send)


async def check_that_a_send_times_out(server, send):
    ended = asyncio.Event()

    async def noted(message):
        try:
            await send(message)
        finally:
            ended.set()

    connection = connect(noted)
    await connection.send(ACCEPT)
    server.reads.clear()
    ended.clear()
    await write(connection, "a")
    await asyncio.wait_for(ended.wait(), 10)
    server.reads.set()
    await write(connection, "b")
    await aeventually(lambda: server.texts, equals=["b"])
    await end(connection)


async def test_a_send_that_awaits_what_was_cancelled_loses_its_frame_only(server):
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    bad = {"a", "c"}

    async def send(message):
        if message.get("text") == "c":
            await asyncio.sleep(0)
        if message.get("text") in bad:
            await cancelled
        await server.send(message)

    connection = connect(send)
    await connection.send(ACCEPT)
    await write(connection, "ab")
    assert server.texts == ["b"]
    await write(connection, "cd")
    await write(connection, "e")
    await aeventually(lambda: server.texts, equals=["b", "d", "e"])
    await end(connection)


class Lazy:
    """Awaitable, but no coroutine."""

    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __await__(self):
        return self.coroutine.__await__()


@pytest.mark.parametrize("wrap", [Lazy, asyncio.ensure_future])
async def test_a_send_may_return_any_awaitable(server, wrap):
    connection = connect(lambda message: wrap(server.send(message)))
    await connection.send(ACCEPT)
    await write(connection, "ab")
    await aeventually(lambda: server.texts, equals=["a", "b"])
    server.reads.clear()
    await write(connection, "cd")
    server.reads.set()
    await aeventually(lambda: server.texts, equals=list("abcd"))
    connection.close(4000)
    await aeventually(lambda: server.sent[-1].get("code"), equals=4000)
    await end(connection)


async def test_a_send_that_is_no_coroutine_function_may_raise(server):
    def send(message):
        if message.get("text") == "a":
            raise LookupError("gone")
        return server.send(message)

    connection = connect(send)
    await connection.send(ACCEPT)
    await write(connection, "ab")
    assert server.texts == ["b"]
    await end(connection)


async def test_the_rest_of_a_send_may_be_awaited_late():
    future = asyncio.get_running_loop().create_future()
    seen = []

    async def send(message):
        seen.append(await future)
        await asyncio.sleep(0)

    rest = start(send, ACCEPT)
    future.set_result("answer")
    await asyncio.sleep(0)
    await rest
    assert seen == ["answer"]


async def test_cancelling_the_rest_cancels_the_send():
    seen = []

    async def send(message):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    rest = start(send, ACCEPT)

    async def finish():
        await rest

    finishing = asyncio.create_task(finish())
    await asyncio.sleep(0)
    finishing.cancel()
    await asyncio.wait([finishing])
    assert seen == ["cancelled"]
    assert finishing.cancelled()


def test_close_messages_say_what_they_close():
    assert close_message("groups.close", 4000, "bye") == {
        "type": "groups.close",
        "code": 4000,
        "reason": "bye",
    }

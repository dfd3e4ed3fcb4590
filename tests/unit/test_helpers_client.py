"""Client and DeafClient, against a small server that speaks the demo's protocol."""

import asyncio
import contextlib
import json

import pytest
import websockets
from websockets.asyncio.server import serve

from tests.helpers.client import Client
from tests.helpers.deaf import DeafClient


async def speak(socket):
    """Be a room in which somebody else comes and goes."""
    me, other = {"id": "1", "name": "ann"}, {"id": "2", "name": "bob"}
    await tell(socket, "welcome", room="room", process="p", count=1, members=[me], id=1)
    async for text in socket:
        message = json.loads(text)
        match message:
            case {"type": "say", "text": "bye"}:
                await socket.close(4000, "as you wish")
            case {"type": "say", "text": said}:
                await tell(socket, "join", **other, count=2)
                await tell(socket, "said", **me, text=said)
            case {"type": "kick"}:
                await tell(socket, "leave", **other, count=1)
            case {"type": "move", "room": None}:
                await tell(
                    socket, "welcome", room=None, process="p", count=0, members=[], id=1
                )


async def tell(socket, type, **fields):
    await socket.send(json.dumps({"type": type, **fields}))


def refuse(connection, request):
    if "closed" in request.path:
        return connection.respond(403, "closed\n")


@pytest.fixture
async def url():
    async with serve(speak, "127.0.0.1", 0, process_request=refuse) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.fixture
async def client(url):
    async with Client(url, room="room", name="ann") as client:
        yield client


async def test_it_knows_what_it_was_told(client):
    assert (client.id, client.process, list(client.members)) == (1, "p", ["1"])
    await client.say("hello")
    assert (await client.receive("said"))["text"] == "hello"
    assert (await client.receive("join"))["id"] == "2", "it came before, and waited"
    assert (client.count, list(client.members)) == (2, ["1", "2"])
    await client.kick("2")
    await client.receive("leave", id="2")
    assert (client.count, list(client.members)) == (1, ["1"])
    assert (await client.move(None))["members"] == []
    assert client.room is None
    kinds = [message["type"] for message in client.received]
    assert kinds == ["welcome", "join", "said", "leave", "welcome"]
    assert len(client.all_of("welcome")) == 2


async def test_no_message_is_returned_twice(client):
    await client.say("hello")
    await client.receive("said", text="hello")
    with pytest.raises(AssertionError, match=r"never got .*'said'.* unread: .*'join'"):
        await client.receive("said", timeout=0.05)


async def test_a_close_ends_the_waiting_at_once(client):
    waiting = asyncio.create_task(client.receive("said"))
    await client.say("bye")
    with pytest.raises(AssertionError, match="before close 4000"):
        await waiting
    assert await client.wait_closed() == (4000, "as you wish")


async def test_vanishing_says_nothing(client):
    await client.vanish()
    assert await client.wait_closed() == (1006, "")


async def test_waiting_for_a_close_has_a_deadline(client):
    with pytest.raises(AssertionError, match="is still open after"):
        await client.wait_closed(timeout=0.05)


async def test_a_refused_handshake_tells_the_status(url):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await Client(url + "closed").open()
    assert refused.value.response.status_code == 403


async def test_a_deaf_client_is_connected_and_reads_nothing():
    heard, deaf_spoke = [], asyncio.Event()

    async def flood(socket):
        heard.append(json.loads(await socket.recv()))
        deaf_spoke.set()
        while True:
            await socket.send("x" * 100_000)

    async with serve(flood, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with contextlib.closing(DeafClient(url)) as deaf:
            await asyncio.to_thread(deaf.open)
            deaf.send(type="say", text="can you hear me?")
            await asyncio.wait_for(deaf_spoke.wait(), 5)
            (connection,) = server.connections
            await asyncio.wait_for(backlog(connection.transport), 5)
    assert heard == [{"type": "say", "text": "can you hear me?"}]


async def backlog(transport):
    """Wait until the server's own buffer fills, for nobody reads."""
    while not transport.get_write_buffer_size():
        await asyncio.sleep(0.01)


async def test_a_deaf_client_that_is_refused_says_so(url):
    with pytest.raises(websockets.exceptions.InvalidStatus):
        await asyncio.to_thread(DeafClient(url + "closed").open)

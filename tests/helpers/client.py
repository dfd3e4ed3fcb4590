"""An asynchronous WebSocket client of the demo that forgets nothing."""

import asyncio
import json
from typing import Any

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed

from .cluster import Node

TIMEOUT = 10

Message = dict[str, Any]


def connect(node: Node, room: str, name: str) -> "Client":
    """
    Return a client for a room of the demo.

        async with connect(node, "room", "ann") as client:
            await client.say("hello")

    Also `client = await connect(...).open()`, with `await client.close()` later. A
    refused handshake raises `websockets.exceptions.InvalidStatus`, whose
    `response.status_code` tells more.
    """
    return Client(node.ws_url(room, name), room=room, name=name)


def connect_lobby(node: Node) -> "Client":
    """Return a client for the lobby, which is told of "rooms"."""
    return Client(node.lobby_url, welcomed=False)


class Client:
    """
    One connection, which reads all the time and forgets nothing.

    `received` holds every message in order; `members` is what it believes of its
    room, by id, from its welcome and the joins and leaves that it was told of.
    """

    def __init__(
        self,
        url: str,
        *,
        room: str | None = None,
        name: str | None = None,
        welcomed: bool = True,
    ) -> None:
        self.url = url
        self.room = room
        self.name = name
        self.welcomed = welcomed
        self.id: str | None = None
        self.process: str | None = None
        self.count: int | None = None
        self.members: dict[str, Message] = {}
        self.received: list[Message] = []
        self._waiting: list[Message] = []
        self._news = asyncio.Event()
        self._socket: websockets.asyncio.client.ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Client {self.name} ({self.id}) in {self.room}>"

    async def __aenter__(self) -> "Client":
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def open(self) -> "Client":
        """Connect, and wait for the welcome if there is to be one."""
        self._socket = await websockets.asyncio.client.connect(
            self.url,
            proxy=None,
            compression=None,
            max_size=None,
            open_timeout=TIMEOUT,
            ping_interval=None,
            close_timeout=TIMEOUT,
        )
        self._reading = asyncio.create_task(self._read(), name=f"read {self.name}")
        if self.welcomed:
            await self._receive_or_close("welcome")
        return self

    async def close(self) -> None:
        """Say goodbye and wait for the end; harmless when closed already."""
        if self._socket is None or self._reading is None:
            return
        await self._socket.close()
        await self._reading

    async def vanish(self) -> None:
        """End the TCP connection with no word of WebSocket."""
        self._open_socket().transport.abort()
        await self.wait_closed()

    async def wait_closed(self, timeout: float = TIMEOUT) -> tuple[int, str]:
        """Wait until the connection is closed; return the code and the reason."""
        if self._reading is None:
            raise RuntimeError(f"{self!r} was never opened")
        await asyncio.wait([self._reading], timeout=timeout)
        if not self._reading.done():
            raise AssertionError(f"{self!r} is still open after {timeout} s")
        return self.close_code or 1006, self._open_socket().close_reason or ""

    @property
    def is_open(self) -> bool:
        return self._reading is not None and not self._reading.done()

    @property
    def close_code(self) -> int | None:
        """The code it was closed with, None while it is open."""
        return None if self._socket is None else self._socket.close_code

    async def receive(
        self, type: str, *, timeout: float = TIMEOUT, **fields: Any
    ) -> Message:
        """
        Wait for the next message of that type and with those fields.

        Messages of other kinds stay for later calls; none is returned twice.
        Raises AssertionError with what did arrive when `timeout` seconds passed.
        """
        wanted = {"type": type, **fields}
        try:
            return await asyncio.wait_for(self._next(wanted), timeout)
        except asyncio.TimeoutError:
            raise AssertionError(self._not_received(wanted)) from None

    def all_of(self, type: str) -> list[Message]:
        """Return every message of that type that ever arrived."""
        return [message for message in self.received if message["type"] == type]

    async def say(self, text: str) -> None:
        """Write to the whole room."""
        await self.send(type="say", text=text)

    async def whisper(self, to: str, text: str) -> None:
        """Write to one member, named by its id."""
        await self.send(type="whisper", to=to, text=text)

    async def move(self, room: str | None) -> Message:
        """Move to another room, or out of all; return the welcome there."""
        await self.send(type="move", room=room)
        return await self.receive("welcome", room=room)

    async def kick(self, id: str) -> None:
        """Have a member closed."""
        await self.send(type="kick", id=id)

    async def who(self) -> Message:
        """Ask who is in the room."""
        await self.send(type="who")
        return await self.receive("who")

    async def send(self, **message: Any) -> None:
        """Send any message as JSON."""
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send anything at all."""
        await self._open_socket().send(text)

    async def _next(self, wanted: Message) -> Message:
        while True:
            for message in self._waiting:
                if wanted.items() <= message.items():
                    self._waiting.remove(message)
                    return message
            if self._reading is None or self._reading.done():
                raise AssertionError(self._not_received(wanted))
            self._news.clear()
            await self._news.wait()

    async def _receive_or_close(self, type: str) -> None:
        try:
            await self.receive(type)
        except BaseException:
            await self.close()
            raise

    async def _read(self) -> None:
        try:
            async for text in self._open_socket():
                message = json.loads(text)
                self.received.append(message)
                self._waiting.append(message)
                self._learn(message)
                self._news.set()
        except ConnectionClosed:
            pass
        finally:
            # Whoever waits shall see that nothing comes any more. This task is
            # done only after that, so tell them by the loop's next turn.
            asyncio.get_running_loop().call_soon(self._news.set)

    def _learn(self, message: Message) -> None:
        if message["type"] == "welcome":
            self.room, self.id = message["room"], message["id"]
            self.process = message["process"]
            self.members = {member["id"]: member for member in message["members"]}
        elif message["type"] == "join":
            self.members[message["id"]] = message
        elif message["type"] == "leave":
            self.members.pop(message["id"], None)
        if message["type"] in ("welcome", "join", "leave"):
            self.count = message["count"]

    def _open_socket(self) -> websockets.asyncio.client.ClientConnection:
        if self._socket is None:
            raise RuntimeError(f"{self!r} was never opened")
        return self._socket

    def _not_received(self, wanted: Message) -> str:
        end = "" if self.close_code is None else f" before close {self.close_code}"
        return f"{self!r} never got {wanted}{end}; unread: {self._waiting}"

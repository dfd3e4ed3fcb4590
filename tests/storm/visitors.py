"""The clients of a storm: each remembers what it may be held to, and no more."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ..helpers.client import Client
from ..helpers.cluster import Node
from ..helpers.eventually import aeventually
from .plan import Step

#: Seconds until a client's question counts as unanswered.
ANSWER = 20
#: Seconds in which a process may still have to tell of a client that is gone.
LINGER = 3

Message = dict[str, Any]


class Visitor(Client):
    """A client that counts what it hears and keeps nothing else."""

    def __init__(self, url: str, *, room: str, name: str) -> None:
        super().__init__(url, room=room, name=name)
        #: How often it heard each text, in the order of the first time.
        self.heard: Counter[str] = Counter()
        #: Operations that it has begun.
        self.operations = 0
        self._answer: asyncio.Future[Message] | None = None
        self._answers: tuple[str, ...] = ()
        self._is_welcome = False

    def _learn(self, message: Message) -> None:
        super()._learn(message)
        if message["type"] == "said":
            self.heard[message["text"]] += 1
        elif message["type"] in self._answers and self._answer:
            if not self._answer.done():
                self._answer.set_result(message)
        if self._is_welcome:
            self.received.clear()
            self._waiting.clear()

    async def open(self) -> Visitor:
        await super().open()
        self._is_welcome = True
        return self

    async def ask(self, *answers: str, **message: Any) -> Message | None:
        """Send a message and return the answer; None where the connection ended.

        Raise AssertionError where it did not, and there is no answer either.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._answers = answers
        try:
            await self.send(**message)
        except ConnectionClosed:
            return None
        assert self._reading is not None
        await asyncio.wait(
            [self._answer, self._reading],
            timeout=ANSWER,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._answer.done():
            return self._answer.result()
        if self.is_open:
            raise AssertionError(f"{self!r} got no answer to {message}")
        return None


class Slot:
    """A place for one client at a time, always on the same process."""

    def __init__(
        self,
        number: int,
        node: Node,
        serving: set[Node],
        on_say: Callable[[Visitor, str], None],
    ) -> None:
        self.number = number
        self.node = node
        self._serving = serving
        self._on_say = on_say
        self.visitor: Visitor | None = None
        self.busy = False
        self.violations: list[str] = []
        #: Every name that it ever had, by id.
        self.names: dict[str, str] = {}
        #: The ids of those that left a room or went away, and when.
        self.departures: list[tuple[float, str]] = []
        #: When something was there of which not even the id is known.
        self.strangers: list[float] = []
        self._generation = 0
        self._said = 0
        self._lock = asyncio.Lock()

    @property
    def open(self) -> Visitor | None:
        """The client, if it is connected."""
        visitor = self.visitor
        return visitor if visitor is not None and visitor.is_open else None

    async def take(self, step: Step) -> None:
        """Do what the plan says, after all that it said before."""
        async with self._turn():
            try:
                await getattr(self, f"_{step.verb}")(step)
            except AssertionError as error:
                self.violations.append(str(error))

    async def enter(self, room: str) -> None:
        """Connect if it is not connected."""
        async with self._turn():
            if self.open is None:
                await self._connect(room)

    async def fail(self, where: str) -> None:
        """Have its consumer raise an exception; that closes the connection."""
        async with self._turn():
            await self._fail(where)

    async def shout(self, times: int) -> None:
        """Say a lot, no faster than it hears itself."""
        async with self._turn():
            visitor = self.open
            for number in range(times) if visitor is not None else ():
                text = f"loud {number} {'x' * 3900}"
                await visitor.say(text)
                if number % 50 == 0:
                    await aeventually(
                        lambda: not visitor.is_open or visitor.heard[text]
                    )

    async def leave(self) -> None:
        """Close the connection if there is one."""
        async with self._turn():
            await self.leave_now()

    async def leave_now(self) -> None:
        """Close the connection if there is one, before all that waits for its turn."""
        if self.open is not None:
            await self._close_visitor(self.open)

    async def learn_room(self) -> None:
        """Ask in which room it is: after a failure only its process knows."""
        async with self._turn():
            if self.open is not None:
                await self._where(self.open)

    def missing_leaves(self) -> set[str]:
        """Return the ids of whose leave its process may not have told yet."""
        since = time.monotonic() - LINGER
        ids = {id for when, id in self.departures if when > since}
        if self.busy and self.visitor and self.visitor.id:
            ids.add(self.visitor.id)
        return ids

    def missing_joins(self) -> int:
        """Return how many may be members without the world knowing their ids."""
        since = time.monotonic() - LINGER
        recent = sum(when > since for when in self.strangers)
        return recent + self.busy

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until nothing else is under way here."""
        async with self._lock:
            self.busy = True
            try:
                yield
            finally:
                self.busy = False

    # The verbs of a plan

    async def _move(self, step: Step) -> None:
        if self.open is None:
            await self._connect(step.room)
        else:
            await self._go(self.open, step.room)

    async def _leave(self, step: Step) -> None:
        if self.open is not None:
            await self._go(self.open, None)

    async def _say(self, step: Step) -> None:
        if self.open is not None and self.open.room is not None:
            self._said += 1
            text = f"{self.open.name}:{self._said}"
            self._on_say(self.open, text)
            with suppress(ConnectionClosed):
                await self.open.say(text)

    async def _close(self, step: Step) -> None:
        if self.open is not None:
            await self._close_visitor(self.open)

    async def _vanish(self, step: Step) -> None:
        visitor = self.open
        if visitor is not None:
            self._depart(visitor)
            with suppress(AssertionError):
                await visitor.vanish()
            self._depart(visitor)

    async def _flit(self, step: Step) -> None:
        """Ask for a WebSocket and be gone before or while it is granted."""
        if self.node not in self._serving:
            return
        self.strangers.append(time.monotonic())
        with suppress(OSError):
            await flit(self.node.ws_url(step.room, self._name()), step.pause / 1000)
        self.strangers.append(time.monotonic())

    # What they are made of

    async def _connect(self, room: str, fail: str = "") -> None:
        if self.node not in self._serving:
            return  # Its port would take a connection long before it serves.
        name = self._name()
        url = self.node.ws_url(room, name) + (f"&fail={fail}" if fail else "")
        visitor = Visitor(url, room=room, name=name)
        self.strangers.append(time.monotonic())
        try:
            await visitor.open()
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
            return  # Refused: full, unavailable, or no process there.
        except AssertionError:
            return  # Accepted, and closed or without a word.
        finally:
            self.strangers.append(time.monotonic())
        self.visitor = visitor
        self.names[str(visitor.id)] = name

    async def _fail(self, where: str) -> None:
        if where in ("connect", "joined"):
            await self.leave_now()
            await self._connect("a place to fail", where)
        elif self.open is not None:
            self._depart(self.open)
            await self.open.send(type="fail", **{"in": where})
        if self.visitor is not None:
            await self.visitor.wait_closed()

    async def _go(self, visitor: Visitor, room: str | None) -> None:
        visitor.operations += 1
        self._depart(visitor)
        answer = await visitor.ask("welcome", "error", type="move", room=room)
        self._depart(visitor)
        if answer and answer["type"] == "error":
            await self._where(visitor)

    async def _where(self, visitor: Visitor) -> None:
        answer = await visitor.ask("here", type="where")
        if answer:
            visitor.room = answer["room"]

    async def _close_visitor(self, visitor: Visitor) -> None:
        self._depart(visitor)
        await visitor.close()
        self._depart(visitor)

    def _depart(self, visitor: Visitor) -> None:
        self.departures = [
            (when, id)
            for when, id in self.departures
            if when > time.monotonic() - 60  # Longer than any round.
        ]
        self.strangers = [
            when for when in self.strangers if when > time.monotonic() - 60
        ]
        self.departures.append((time.monotonic(), str(visitor.id)))

    def _name(self) -> str:
        """Return a new name; three slots in a row are one user's."""
        self._generation += 1
        return f"user{self.number // 3}.{self.number}.{self._generation}"


async def flit(url: str, pause: float) -> None:
    """Send a handshake's request and close the connection so many seconds later."""
    reader, writer = await ask_for_websocket(url)
    await asyncio.sleep(pause)
    writer.transport.abort()


async def ask_for_websocket(
    url: str,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and send a handshake's request, with nothing that reads the answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    request = (
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    writer.write(request.encode())
    return reader, writer

"""One live connection of this process: what comes in for it, what goes out."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Coroutine, Iterable

from channels import DEFAULT_CHANNEL_LAYER

from .deadline import in_time
from .exceptions import ConnectionClosed
from .meters import METERS
from .receiver import Receiver

if TYPE_CHECKING:
    from .groups import GroupChange
    from .membership import Membership

logger = logging.getLogger("channels_groups")

Message = dict[str, Any]
#: A server's or a middleware's; a middleware's may return any awaitable.
Send = Callable[[Message], Awaitable[None]]

CONNECTING, OPEN, CLOSED = "connecting", "open", "closed"

#: Seconds for a client that is slow to take the close, as long as uvicorn gives it to
#: answer one.
GOODBYE = 10
#: RFC 6455: try again later. For a client that does not read what it is sent.
TRY_AGAIN_LATER = 1013
#: Added to a code that the server refuses: 1013 becomes 4013, which is not reserved.
UNRESERVED = 3000
#: The client's own word for which connection it had before: by its id, of which it may
#: have had others in some groups.
_former = re.compile(rb"(?:^|&)group_former=([A-Za-z0-9_-]{1,64})(?=&|$)")
MAX_FORMER = 8


class LocalConnection:
    """A consumer's connection.

    Frames from its groups go straight to the server's ``send``, past the
    consumer. Everything that a handler has to see goes through its inbox, which
    the consumer reads in place of its channel, so handlers run one at a time.
    """

    def __init__(
        self,
        consumer: Any,
        scope: Message,
        send: Send,
        outbox: int,
        alias: str = DEFAULT_CHANNEL_LAYER,
    ) -> None:
        self.id = secrets.token_urlsafe(9)
        self.alias = alias
        self.consumer = consumer
        self.scope = scope
        #: Seconds since the epoch.
        self.connected_at = time.time()
        self.memberships: dict[str, Membership] = {}
        #: What update_info() was given, for the groups that it has yet to enter.
        self.updates: dict[str, Any] = {}
        #: The name of set_group()'s group.
        self.current: str | None = None
        #: Held while a set_group(), join_group() or leave_group() is under way.
        self.lock = asyncio.Lock()
        #: The application is ending: nothing is joined any more.
        self.ended = False
        #: The server has closed it: its memberships do not linger.
        self.dismissed = False
        #: The ids of the connection that it says it goes on with.
        found = _former.findall(scope.get("query_string") or b"")[:MAX_FORMER]
        self.former = tuple(id.decode() for id in found)
        #: Its own id and those of memberships that it has resumed.
        self.ids = {self.id}
        self._loop = asyncio.get_running_loop()
        self._is_websocket = scope["type"] == "websocket"
        self._state = CONNECTING if self._is_websocket else OPEN
        self._send = send
        self._limit = outbox
        self._outbox: deque[Message] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None
        self._inbox: deque[Message | Callable[[], Message | None]] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._receiver: Receiver | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What log records tell of it."""
        return {"alias": self.alias, "connection": self.id}

    @property
    def channel_name(self) -> str:
        name: str = self.consumer.channel_name
        return name

    @property
    def is_open(self) -> bool:
        """Whether its client may be sent something."""
        return self._state is OPEN

    def check_open(self) -> None:
        if self.ended:
            raise ConnectionClosed

    # In: what handlers will see

    def listen(self, layer: Any, beside: bool) -> None:
        """Begin to read the consumer's channel; ``beside`` as in Receiver."""
        self._receiver = Receiver(layer, self.channel_name, self.take, beside)

    async def receive(self) -> Message:
        """Return the next message of the inbox. May be cancelled without a loss."""
        while True:
            while not self._inbox:
                self._arrival = self._loop.create_future()
                await self._arrival
            first = self._inbox.popleft()
            message = first() if callable(first) else first
            if message is not None:
                return message

    def put(self, message: Message) -> None:
        """Put a message for a handler into the inbox.

        A consumer that has fallen behind by as many as its client may is closed
        like such a client.
        """
        if self.ended:
            return
        if len(self._inbox) >= self._limit:
            self._close_slow("its handlers are", logging.WARNING)
            return
        self._append(message)

    def tell(self, change: GroupChange) -> None:
        """Put a change into the inbox, merged with one that still waits there."""
        last = self._inbox[-1] if self._inbox else None
        if isinstance(last, dict) and last["type"] == "groups.change":
            merged = last["change"].merge(change)
            if merged:
                last["change"] = merged
                return
        self.put({"type": "groups.change", "change": change})

    def ask(self, make: Callable[[], Message | None]) -> None:
        """Let a message for a handler be made when it is its turn."""
        if not self.ended:
            self._append(make)

    def take(self, message: Message) -> Iterable[Awaitable[None]]:
        """Take a message that was sent to the consumer's channel."""
        kind = message.get("type")
        if kind == "groups.send":
            rest = self.write(to_frame(message))
            if rest is not None:
                return (rest,)
        elif kind == "groups.close":
            self.close(message.get("code"), message.get("reason"))
        else:
            self.put(message)
        return ()

    # Out: what the client will see

    async def send(self, message: Message) -> None:
        """Send a message of the consumer: the ``send`` that it is given."""
        kind = message["type"]
        if self._state is CLOSED and kind.startswith("websocket."):
            return  # As daphne does; other servers raise.
        if kind == "websocket.close":
            self.dismissed = True
            self._state = CLOSED
            self._outbox.clear()
        await self._send(message)
        if kind == "websocket.accept" and self._state is CONNECTING:
            self._state = OPEN
            if self._outbox:
                self._start_writer()

    def write(self, frame: Message) -> Awaitable[None] | None:
        """Send a frame from a group, now if the client keeps up, else in its turn.

        Before the handshake's end it is kept; after the close it is dropped. If the
        client keeps up no more, what is returned is for the task that runs this to
        await: it is the connection's writer from then on (see Receiver).
        """
        is_free = self._writer is None and not self._outbox
        if self._state is OPEN and is_free and self._is_websocket:
            rest = start(self._send, frame)
            if rest is not None:
                return self._drain(rest)
        else:
            self.write_later(frame)
        return None

    def write_later(self, frame: Message) -> None:
        """Do the same in a task of the connection's own."""
        if not self._is_websocket:
            self.put({**frame, "type": "groups.frame"})
        elif self._state is not CLOSED:
            self._outbox.append(frame)
            if len(self._outbox) > self._limit:
                self._close_slow("its client is", logging.INFO)
            elif self._state is OPEN and self._writer is None:
                self._start_writer()

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection from the server's side.

        The consumer is told at once, so its memberships do not wait for a client
        that does not answer.
        """
        self.dismissed = True
        self._close(code, reason)

    def give_way(self, code: int) -> None:
        """Close it for another one that goes on; what else it is in may linger.

        groups.js knows the reason, and comes back as a new member.
        """
        self._close(code, "taken over")

    def _close(self, code: int | None, reason: str | None) -> None:
        if not self._is_websocket:
            self._append({"type": "http.disconnect"})
            return
        if self._state is CLOSED:
            return
        message: Message = {"type": "websocket.close"}
        if code is not None:
            message["code"] = code
        if reason:
            message["reason"] = reason
        self._state = CLOSED
        self._outbox.clear()
        self._closer = self._loop.create_task(
            self._finish(in_time(self._send_close(message), GOODBYE)),
            name=f"close connection {self.id}",
        )
        code = 1000 if code is None else code
        self._append({"type": "websocket.disconnect", "code": code})

    def close_with(self, code_and_reason: tuple[int | None, str | None]) -> None:
        self.close(*code_and_reason)

    async def finish(self) -> None:
        """Stop what is still under way. Only to be called when ended is True."""
        self._state = CLOSED
        self._outbox.clear()
        if self._receiver:
            await self._receiver.stop()
        if self._closer:
            await asyncio.wait([self._closer], timeout=1)
        writer = self._writer
        if writer and not writer.done():
            writer.cancel()
            await asyncio.wait([writer])

    async def say_goodbye(self) -> None:
        """Wait until the server has taken the close, if there is one.

        Where the server applies backpressure it does when the client has read some
        of what waits there; it would send none once the application has returned.
        """
        if self._closer:
            await asyncio.wait([self._closer])

    def break_off_goodbye(self) -> None:
        """Do not go on with the close when the application has ended."""
        if self._closer:
            self._closer.cancel()

    # Below

    def _append(self, message: Message | Callable[[], Message | None]) -> None:
        self._inbox.append(message)
        if self._arrival and not self._arrival.done():
            self._arrival.set_result(None)

    def _close_slow(self, who: str, level: int) -> None:
        """Close it: a slow client is a matter of its own, slow handlers are not."""
        if self._state is not CLOSED:
            logger.log(
                level,
                "Closed connection %s: %s more than %d messages behind.",
                *(self.id, who, self._limit),
                extra=self.about,
            )
            for meter in METERS:
                meter.closed_slow(self.alias)
            self._close(TRY_AGAIN_LATER, "too slow")

    def _start_writer(self) -> None:
        self._writer = self._loop.create_task(self._drain())

    async def _drain(self, rest: Awaitable[None] | None = None) -> None:
        """Be the connection's writer, for as long as frames wait."""
        self._writer = asyncio.current_task()
        assert self._writer
        self._writer.set_name(f"write to connection {self.id}")
        try:
            if rest is not None:
                await self._finish(rest)
            while self._outbox:
                await self._finish(self._call(self._outbox.popleft()))
        finally:
            self._writer = None

    async def _send_close(self, message: Message) -> None:
        """Close it, with another code where the server does not send that one.

        daphne 4.2 raises for all but 1000 and 3000 to 4999, and leaves it open.
        """
        try:
            await self._send(message)
        except Exception:
            code = message.get("code", 1000)
            if not 1000 < code < 2000:
                raise
            await self._send({**message, "code": code + UNRESERVED})

    async def _call(self, message: Message) -> None:
        await self._send(message)

    async def _finish(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            logger.debug("Connection %s did not take a frame.", self.id, exc_info=True)
        except Exception:  # Servers differ in what they raise for a client gone.
            logger.debug("Connection %s did not take a frame.", self.id, exc_info=True)


def to_frame(message: Message) -> Message:
    """Return the WebSocket frame of a message with "text" or "bytes"."""
    kind = "text" if message.get("text") is not None else "bytes"
    return {"type": "websocket.send", kind: message[kind]}


class _Rest:
    """The rest of a coroutine that has been started and waits for something."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Any:
        waits_for = self._waits_for
        while True:
            try:
                try:
                    result = yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(result)
            except StopIteration:
                return


def start(send: Send, message: Message) -> Awaitable[None] | None:
    """Send until that has to wait; return the rest, or None at its end.

    A server's ``send`` seldom waits, and a task for each frame would cost more
    than the frame. The rest is for the task that has called this: a timeout within
    ``send`` cancels the task that it has begun in.
    """
    try:
        sending = send(message)
        if type(sending) is not CoroutineType:
            sending = _wait_for(sending)
        return _Rest(sending, sending.send(None))
    except StopIteration:
        return None
    except (Exception, asyncio.CancelledError):  # Of another task that it waits for.
        logger.debug("A connection did not take a frame.", exc_info=True)
        return None


async def _wait_for(sending: Awaitable[None]) -> None:
    await sending


def _is_cancelled() -> bool:
    """Return whether the running task is, and not only one that it waited for.

    Python 3.10 cannot tell: the task ends.
    """
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0

"""Telling whoever watches of every event in the whole cluster.

A watcher keeps the name of its channel in the store, for a few seconds at a time,
and each renewal of each node brings the names along. A node that knows of none does
nothing more than look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, AsyncIterator, NamedTuple, Sequence, Union

from . import signals
from .connection import Message
from .exceptions import StoreUnavailable
from .receiver import RETRY, Receiver, StopReceiving
from .relay import BAD_MESSAGE, call_layer, end_receiver

if TYPE_CHECKING:
    from .groups import ConnectionGroup
    from .manager import GroupManager
    from .node import Node

logger = logging.getLogger("channels_groups")

#: Seconds for which a watcher is known to the nodes, and after which it says it again.
KNOWN = 10
AGAIN = 2
#: Seconds over which a node gathers events, and how many go into one message.
GATHERED = 0.05
PAGE = 100
#: Seconds over which a watcher puts the events of several nodes in order.
SORTED = 0.2
#: Events of a node that wait to be sent, or to be known if anybody wants them.
WAITING = 10_000

NAMES = {
    signals.group_created: "created",
    signals.group_join: "join",
    signals.group_update: "update",
    signals.group_leave: "leave",
    signals.group_destroyed: "destroyed",
}


@dataclass(frozen=True)
class Event:
    """What a signal told, in whichever process; ``time`` by that process' clock."""

    name: str
    group: str
    revision: int
    time: float
    id: str | None = None
    user_id: str | None = None
    reason: str | None = None
    count: int | None = None
    user_count: int | None = None


class Gap(NamedTuple):
    """A reason why events may be missing here."""

    why: str


class Reporter:
    """Sends a node's events in one shard to those who watch."""

    def __init__(self, node: Node) -> None:
        self._node = node
        #: None: the first renewal has yet to tell.
        self._watchers: Sequence[str] | None = None
        self._events: deque[Event] = deque()
        self._missed: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches, or may: it is not known yet."""
        return self._watchers is None or bool(self._watchers)

    def know(self, watchers: Sequence[str]) -> None:
        """Take the watchers that a renewal named."""
        self._watchers = watchers
        if not watchers:
            self._events.clear()
        elif self._events:
            self._start()

    def add(
        self,
        group: ConnectionGroup,
        fired: list[tuple[Any, dict[str, Any]]],
    ) -> None:
        """Report the signals of one change, if anybody watches."""
        if not self.is_watched:
            return
        now = time.time()
        # A user's first and last connection are told by their joins and leaves.
        for signal, about in (one for one in fired if one[0] in NAMES):
            if len(self._events) < WAITING:
                self._events.append(_event(NAMES[signal], group.name, now, about))
            else:
                self._missed.update(self._watchers or ())
        if self._watchers:
            self._start()

    async def stop(self) -> None:
        """Send what is there, and end."""
        if self._task:
            await asyncio.wait([self._task])

    def _start(self) -> None:
        if self._task is None:
            self._task = self._node.loop.create_task(
                self._send(), name="tell watchers of events"
            )

    async def _send(self) -> None:
        try:
            await asyncio.sleep(GATHERED)
            while self._events and self._watchers:
                size = min(PAGE, len(self._events))
                events = [list(astuple(self._events.popleft())) for _ in range(size)]
                for watcher in self._watchers:
                    await self._send_to(watcher, events)
        finally:
            self._task = None

    async def _send_to(self, watcher: str, events: list[list[Any]]) -> None:
        missed = self._missed.pop(watcher, 0)
        message = {"type": "groups.events", "events": events, "missed": missed}
        try:
            await call_layer(self._node.layer.send(watcher, message), BAD_MESSAGE)
        except (StoreUnavailable, *BAD_MESSAGE):
            self._missed[watcher] = missed + len(events)
            logger.debug("A watcher was not told of events.", exc_info=True)


class Watcher:
    """Hear of every event of the cluster, or of those of one group.

    ::

        async with Watcher(manager) as watcher:
            async for event in watcher:
                ...

    It begins within one renewal (a second); outages show as a Gap. Entering raises
    StoreUnavailable.
    """

    def __init__(self, manager: GroupManager, group: str | None = None) -> None:
        self._group = group
        self._layer = manager.channel_layer
        self._store = manager.store
        self._queue: asyncio.Queue[Union[Event, Gap]] = asyncio.Queue()

    async def __aenter__(self) -> Watcher:
        self._store.attach()
        try:
            self._channel = await call_layer(self._layer.new_channel())
            await self._store.watch(self._channel, KNOWN)
        except BaseException:
            await self._store.detach()
            raise
        self._receiver = Receiver(self._layer, self._channel, self._take)
        self._task = asyncio.create_task(self._be_known(), name="be known as a watcher")
        return self

    async def __aexit__(self, *about: Any) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        try:
            await self._store.watch(self._channel, 0)
        except StoreUnavailable:
            logger.debug("A watcher's name was left to expire.", exc_info=True)
        await end_receiver(self._layer, self._receiver)
        await self._store.detach()

    async def __aiter__(self) -> AsyncIterator[Union[Event, Gap]]:
        """Iterate over what happens, in the order of revisions."""
        while True:
            news = [await self._queue.get()]
            await asyncio.sleep(SORTED)
            while not self._queue.empty():
                news.append(self._queue.get_nowait())
            for one in sorted(news, key=_place):
                yield one

    async def _be_known(self) -> None:
        is_known = True
        while True:
            await asyncio.sleep(AGAIN if is_known else RETRY)
            try:
                await self._store.watch(self._channel, KNOWN)
            except StoreUnavailable as error:
                if is_known:
                    self._queue.put_nowait(Gap(f"{error} Events may be missed."))
                is_known = False
            else:
                if not is_known:
                    self._queue.put_nowait(Gap("The store answers again."))
                is_known = True

    def _take(self, message: Message) -> None:
        if message.get("type") == "groups.stop":
            raise StopReceiving
        if message.get("type") != "groups.events":
            return
        if message["missed"]:
            why = f"{message['missed']:,} events could not be told in time."
            self._queue.put_nowait(Gap(why))
        for event in (Event(*one) for one in message["events"]):
            if self._group in (None, event.group):
                self._queue.put_nowait(event)


def _place(news: Union[Event, Gap]) -> tuple[int, int]:
    """Where revisions are the same, created comes first and destroyed last."""
    if isinstance(news, Gap):
        return 0, 0
    return news.revision, {"created": -1, "destroyed": 1}.get(news.name, 0)


def _event(name: str, group: str, now: float, about: dict[str, Any]) -> Event:
    connection = about.get("connection")
    return Event(
        name,
        group,
        about["revision"],
        now,
        connection.id if connection else None,
        connection.user_id if connection else None,
        about.get("reason"),
        about.get("count"),
        about.get("user_count"),
    )

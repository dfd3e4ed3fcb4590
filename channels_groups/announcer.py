"""Firing the signals, in the order of each group's revisions."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterator

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections
from django.dispatch import Signal

from . import signals
from .thread import OldConnections

if TYPE_CHECKING:
    from .groups import ConnectionGroup

SIGNALS = (
    signals.group_created,
    signals.group_join,
    signals.group_user_join,
    signals.group_update,
    signals.group_leave,
    signals.group_user_leave,
    signals.group_destroyed,
)

logger = logging.getLogger("channels_groups")

#: The groups whose receivers are running in this context, and the connections whose
#: joins and leaves wait for them.
_announcing: contextvars.ContextVar[frozenset[object]] = contextvars.ContextVar(
    "channels_groups_announcing", default=frozenset()
)


#: The groups whose signals receivers wait for now, each with who waits for them.
_waits: list[tuple[str, frozenset[object]]] = []


def announcing() -> frozenset[object]:
    """Return the groups and connections that wait for what is called from here."""
    return _announcing.get()


def would_wait_for_ever(group: str) -> bool:
    """Return whether the group's next signals wait for the receiver that asks.

    They do if the receiver is one of the group's own, or if a receiver of the group
    waits for another group of which the same is true.
    """
    waiting, found = announcing(), {group}
    if not waiting:
        return False
    before = 0
    while len(found) > before:
        before = len(found)
        found.update(other for other, who in _waits if not who.isdisjoint(found))
    return not waiting.isdisjoint(found)


@contextmanager
def waits_for(group: str) -> Iterator[None]:
    """Note, in a receiver, that it waits for the group's next signals."""
    wait = group, announcing()
    if not wait[1]:
        yield
        return
    _waits.append(wait)
    try:
        yield
    finally:
        _waits.remove(wait)


def check_not_announcing(group: str) -> None:
    """Raise RuntimeError in a receiver that the group waits for, not a deadlock."""
    if would_wait_for_ever(group):
        raise RuntimeError(
            "A receiver of a signal cannot wait for a join or leave of group "
            f"{group!r}, which comes after it: use Connection.set_group()."
        )


def check_not_awaited(connection: object) -> None:
    """Raise RuntimeError in a receiver that the connection waits for."""
    if connection in announcing():
        raise RuntimeError(
            "A receiver of a signal cannot wait for a join or leave of the connection "
            "that waits for this receiver: use Connection.set_group()."
        )


@dataclass
class Announcement:
    """The signals of one change, to be fired one after the other."""

    sender: type
    group: ConnectionGroup
    signals: list[tuple[Signal, dict[str, Any]]]
    #: Called after the last signal.
    finish: Callable[[], None]
    #: The groups and connections that wait for this one.
    waiting: frozenset[object] = field(default_factory=frozenset)

    def has_receivers(self) -> bool:
        for signal, _ in self.signals:
            if signal.receivers and signal.has_listeners(self.sender):
                return True
        return False

    @property
    def about(self) -> dict[str, Any]:
        """What log records tell of it."""
        return {"alias": self.group.manager.alias, "group": self.group.name}

    async def fire(self) -> None:
        for signal, arguments in self.signals:
            try:
                await signal.asend_robust(self.sender, group=self.group, **arguments)
            except asyncio.CancelledError:
                # asend_robust() of Django 6.0 and before lets through what a receiver
                # raises that awaits a cancelled task; that of 6.1 passes over it. The
                # group's queue goes on.
                what = "A receiver of a signal was cancelled."
                logger.exception(what, extra=self.about)
        self.finish()


class Announcer:
    """Fires each group's signals one at a time, different groups' at the same time.

    Sync receivers run in a thread of their own: the process' one thread-sensitive
    thread may be blocked by a sync consumer that waits for these very signals. Its
    database connections are looked after as Channels does before handlers.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, deque[Announcement]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: asyncio.Task[None] | None = None
        self._context: contextvars.Context | None = None
        self._stopping = asyncio.Event()
        self._old_connections = OldConnections()

    def is_listened_to(self, group: str) -> bool:
        """Return whether a signal has receivers, or had until just now."""
        return group in self._queues or any(signal.receivers for signal in SIGNALS)

    def announce(self, announcement: Announcement) -> None:
        """Fire the signals after those announced before for the group."""
        group = announcement.group.name
        if group in self._queues:
            self._queues[group].append(announcement)
        elif announcement.has_receivers():
            self._queues[group] = deque([announcement])
            self._start(group)
        else:
            announcement.finish()

    async def stop(self) -> None:
        """Fire what has been announced and end the thread."""
        while self._queues:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)
        self._stopping.set()
        if self._thread:
            await asyncio.wait([self._thread])

    def _start(self, group: str) -> None:
        if self._thread is None:
            # Empty, so that no thread of a waiting consumer is inherited.
            self._thread = contextvars.Context().run(
                self._loop.create_task, self._hold_thread()
            )
        if self._context is not None:
            task = self._context.copy().run(
                self._loop.create_task, self._announce(group)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hold_thread(self) -> None:
        async with ThreadSensitiveContext():
            self._context = contextvars.copy_context()
            for group in list(self._queues):
                self._start(group)
            await self._stopping.wait()
            await sync_to_async(connections.close_all)()

    async def _announce(self, group: str) -> None:
        queue = self._queues[group]
        while queue:
            announcement = queue[0]
            _announcing.set(announcement.waiting | {group})
            try:
                await self._old_connections.close()
            except Exception:
                # Else the group would have no signals any more.
                what = "Old database connections were not closed before receivers."
                logger.exception(what, extra=announcement.about)
            await announcement.fire()
            queue.popleft()
        del self._queues[group]

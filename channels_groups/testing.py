"""What helps in testing code that uses groups.

Everything here is a context manager or a function, for pytest and for unittest.
With pytest the fixtures ``isolated_groups`` and ``group_events`` are there as soon
as the library is installed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Awaitable, Callable, Sequence, TypeVar
from uuid import uuid4
from weakref import WeakSet

from asgiref.sync import async_to_sync
from django.conf import settings
from django.test.utils import override_settings

from . import manager as managers
from . import node as nodes
from . import shutdown
from .groups import Connection, ConnectionGroup
from .signals import (
    group_created,
    group_destroyed,
    group_join,
    group_leave,
    group_update,
    group_user_join,
    group_user_leave,
)
from .stores.base import (
    LINGERING,
    Answer,
    BaseStore,
    Eviction,
    Incarnation,
    Operation,
    Renewal,
)
from .stores.memory import MemoryStore

T = TypeVar("T")

#: A channel layer of a test's own.
IN_MEMORY = {
    "BACKEND": "channels.layers.InMemoryChannelLayer",
    "CONFIG": {"capacity": 10_000},
}
#: Seconds between two looks at what is waited for.
INTERVAL = 0.01
#: Seconds that waiting takes at most, unless told otherwise.
TIMEOUT = 5

SIGNALS = {
    "created": group_created,
    "join": group_join,
    "leave": group_leave,
    "destroyed": group_destroyed,
    "update": group_update,
    "user_join": group_user_join,
    "user_leave": group_user_leave,
}
#: What is captured if nothing else is asked for.
DEFAULT = ("created", "join", "leave", "destroyed")


@dataclass(frozen=True)
class GroupEvent:
    """One signal as it was received; None where a signal has no such argument."""

    #: ``"created"``, ``"join"``, ``"leave"`` or ``"destroyed"``; also ``"update"``,
    #: ``"user_join"`` and ``"user_leave"`` if they were asked for.
    name: str
    group: ConnectionGroup
    connection: Connection | None
    reason: str | None
    count: int | None
    user_count: int | None
    revision: int
    #: Of ``"user_join"`` and ``"user_leave"``; others have it in the connection.
    user_id: str | None = None


class GroupEvents(list[GroupEvent]):
    """The events in the order of the signals; a list that can be waited for."""

    async def await_for(
        self, name: str, *, timeout: float = TIMEOUT, **facts: Any
    ) -> GroupEvent:
        """Return the first event of that name and with those facts.

        ``facts`` are attributes of GroupEvent; ``group`` may be a name::

            event = await events.await_for("leave", group="Lobby", reason="lost")

        An event that has come before is returned at once. Raise AssertionError,
        which tells what came instead, if there is none in so many seconds.
        """
        wanted = {"name": name, **facts}

        async def find() -> list[GroupEvent]:
            return [event for event in self if _is_such(event, wanted)][:1]

        found = await _await_for(find, timeout, lambda: f"no {wanted} in {self}")
        return found[0]

    def wait_for(
        self, name: str, *, timeout: float = TIMEOUT, **facts: Any
    ) -> GroupEvent:
        """Do as await_for() in a sync test, whose events come from other threads."""
        return async_to_sync(self.await_for)(name, timeout=timeout, **facts)


class capture_group_events:
    """Record the signals of all groups that this process fires.

    ::

        with capture_group_events() as events:
            ...
        assert [event.name for event in events] == ["created", "join"]

    Also to be used with ``async with``. The list grows in the order of the signals,
    and they are fired before set_group() returns: nothing has to be waited for.

    ``names`` are those of the events to record, see GroupEvent. Without any they are
    ``"created"``, ``"join"``, ``"leave"`` and ``"destroyed"``.
    """

    def __init__(self, *names: str) -> None:
        for name in names:
            if name not in SIGNALS:
                raise ValueError(f"{name!r} is not one of {', '.join(SIGNALS)}.")
        self._names = names or DEFAULT
        self._events = GroupEvents()
        self._receivers: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> GroupEvents:
        self._events = GroupEvents()
        for name in self._names:
            self._receivers[name] = receiver = self._make_receiver(name)
            SIGNALS[name].connect(receiver, weak=False)
        return self._events

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, receiver in self._receivers.items():
            SIGNALS[name].disconnect(receiver)
        self._receivers.clear()

    async def __aenter__(self) -> GroupEvents:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _make_receiver(self, name: str) -> Callable[..., Any]:
        events = self._events

        # Async: it runs in the event loop, in the order of the signals.
        async def receive(
            group: ConnectionGroup,
            revision: int,
            connection: Connection | None = None,
            reason: str | None = None,
            count: int | None = None,
            user_count: int | None = None,
            user_id: str | None = None,
            **kwargs: Any,
        ) -> None:
            about = connection, reason, count, user_count, revision, user_id
            events.append(GroupEvent(name, group, *about))

        return receive


async def await_for_count(
    group: ConnectionGroup, count: int, *, timeout: float = TIMEOUT
) -> None:
    """Return as soon as a group has so many members, in the whole cluster.

    Raise AssertionError, which tells the last count, if that takes too long.
    """
    seen = -1

    async def is_reached() -> bool:
        nonlocal seen
        seen = await group.acount()
        return seen == count

    def what() -> str:
        return f"{group.name!r} has {seen} members, not {count},"

    await _await_for(is_reached, timeout, what)


def wait_for_count(
    group: ConnectionGroup, count: int, *, timeout: float = TIMEOUT
) -> None:
    """Do as await_for_count() in a sync test."""
    async_to_sync(await_for_count)(group, count, timeout=timeout)


class FakeClock:
    """The time by which leases run out where isolated_groups() are in memory."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stores: WeakSet[ClockedStore] = WeakSet()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once.

        Living processes have renewed their leases meanwhile. The lease of one that
        was killed runs out after LEASE (10) seconds, and within the next real one
        the others tell of its members' leaves. So it is with GRACE and who lingers.
        """
        for store in self.stores:
            store.renew_the_living(seconds)
        self.now += seconds


class ClockedStore(MemoryStore):
    """The store of isolated_groups(): in memory, with their clock."""

    def __init__(self, alias: str, layer: Any) -> None:
        clock = isolated_groups.current.clock if isolated_groups.current else None
        super().__init__(alias, layer, clock or time.monotonic)
        #: The ids of killed processes' nodes.
        self.silent: set[str] = set()
        if clock:
            clock.stores.add(self)

    def renew_the_living(self, seconds: float) -> None:
        with self._lock:
            for id, node in self._nodes.items():
                if id not in {*self.silent, LINGERING} and node.deadline > 0:
                    node.deadline += seconds


class isolated_groups:
    """Give a test groups of its own, in memory, whatever the settings say.

    ::

        with isolated_groups(MAX_MEMBERS=2) as groups:
            ...
            groups.clock.advance(11)

    Every channel layer is replaced by a new one in memory. CHANNELS_GROUPS stays as
    it is but for STORE and the keys given here. ``channel_layers`` is a
    CHANNEL_LAYERS to be used instead, for instance with a prefix of the test's own
    on a Redis; ``clock`` has no effect there.

    Also to be used with ``async with``, which at the end lets the connections leave
    that the test has left open.
    """

    #: The innermost one that is entered.
    current: isolated_groups | None = None

    def __init__(
        self, *, channel_layers: dict[str, Any] | None = None, **keys: Any
    ) -> None:
        #: FakeClock: when leases run out.
        self.clock = FakeClock()
        self._layers = channel_layers
        self._keys = keys

    def __enter__(self) -> isolated_groups:
        self._override = override_settings(**self._settings())
        self._override.enable()
        self._outer, isolated_groups.current = isolated_groups.current, self
        self._nodes = dict(nodes._nodes)
        nodes._nodes.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for left in nodes._nodes.values():
            shutdown.remove(left.hook)
        nodes._nodes.clear()
        nodes._nodes.update(self._nodes)
        isolated_groups.current = self._outer
        self._override.disable()

    async def __aenter__(self) -> isolated_groups:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        left = [one for one in nodes._nodes.values() if one.loop is loop]
        await asyncio.gather(*(one.shutdown() for one in left))
        self.__exit__(kind, error, traceback)

    def _settings(self) -> dict[str, Any]:
        own: dict[str, Any] = {}
        layers = self._layers
        if layers is None:
            own["STORE"] = f"{__name__}.ClockedStore"
            aliases = getattr(settings, "CHANNEL_LAYERS", {}) or {"default": {}}
            layers = {alias: IN_MEMORY for alias in aliases}
        config = getattr(settings, "CHANNELS_GROUPS", {})
        keys = {
            alias: {**config.get(alias, {}), **own, **self._keys} for alias in layers
        }
        return {"CHANNEL_LAYERS": layers, "CHANNELS_GROUPS": keys}


class simulated_process:
    """A further process of the cluster, in the event loop of the test.

    ::

        async with simulated_process() as other:
            ann = WebsocketCommunicator(other.serve(application), "/ws/rooms/Lobby/")
            await ann.connect()
            await other.kill()

    It has a lease and memberships of its own, and to others its connections are
    somewhere else (their ``scope`` is None). Signals are heard wherever they fire.
    At the end it stops in order: its connections leave as ``"disconnected"``.
    """

    def __init__(self, alias: str = "default") -> None:
        self._alias = alias
        self._name = uuid4().hex
        self._running: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> simulated_process:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    def serve(self, application: Any) -> Any:
        """Return an ASGI application that runs the given one in this process."""

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            nodes.simulated.set(self._name)
            _wire(self._alias)
            running = asyncio.ensure_future(application(scope, receive, send))
            self._running.add(running)
            try:
                await asyncio.wait([running])
            finally:
                running.cancel()
                self._running.discard(running)
            if not running.cancelled():
                running.result()

        return serve

    async def kill(self) -> None:
        """End it at once, as SIGKILL does: nobody leaves, no signal fires.

        The others tell of its members' leaves, as ``"lost"``, when they notice: with
        isolated_groups() in memory that is when their clock has advanced by LEASE.
        """
        _wire(self._alias).kill(self._name)
        await self._end()

    async def _end(self) -> None:
        running = list(self._running)
        for one in running:
            one.cancel()
        if running:
            await asyncio.wait(running)


class _Wire:
    """A store through which simulated processes reach the real one until they die.

    To a dead one it answers what lets it end without a signal.
    """

    def __init__(self, store: BaseStore) -> None:
        self._store = store
        self._dead: set[str] = set()
        self._ids: dict[str, set[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def kill(self, process: str) -> None:
        self._dead.add(process)
        if isinstance(self._store, ClockedStore):
            self._store.silent |= self._ids.get(process, set())

    @property
    def _is_cut(self) -> bool:
        return nodes.simulated.get() in self._dead

    async def register(
        self, shard: int, incarnation: Incarnation, epoch: str, lease: float
    ) -> str:
        if self._is_cut:
            return epoch
        self._ids.setdefault(nodes.simulated.get(), set()).add(incarnation.id)
        return await self._store.register(shard, incarnation, epoch, lease)

    async def renew(
        self, shard: int, incarnation: Incarnation, epoch: str, *args: Any
    ) -> Renewal:
        if self._is_cut:
            return Renewal("alive", epoch, [])
        return await self._store.renew(shard, incarnation, epoch, *args)

    async def commit(
        self,
        shard: int,
        incarnation: Incarnation,
        sequence: int,
        operations: Sequence[Operation],
        *args: Any,
        **kwargs: Any,
    ) -> list[Answer]:
        if self._is_cut:
            return [Answer("unchanged", 0, 0, 0, False) for _ in operations]
        return await self._store.commit(
            shard, incarnation, sequence, operations, *args, **kwargs
        )

    async def evict(self, *args: Any) -> Eviction:
        if self._is_cut:
            return Eviction([], [], True)
        return await self._store.evict(*args)

    async def release(self, shard: int, incarnation: Incarnation) -> None:
        if self._is_cut:
            await self._store.forget(incarnation)
        else:
            await self._store.release(shard, incarnation)


def _wire(alias: str) -> _Wire:
    """Put a wire before the store of an alias, once."""
    store: Any = managers.get_group_manager(alias).store
    if not isinstance(store, _Wire):
        store = _Wire(store)
        managers._stores[alias] = store
    wire: _Wire = store
    return wire


async def _await_for(
    probe: Callable[[], Awaitable[T]], timeout: float, what: Callable[[], str]
) -> T:
    """Return what a probe finds as soon as it is true."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not (found := await probe()):
        if loop.time() >= deadline:
            raise AssertionError(f"{what()} within {timeout} s.")
        await asyncio.sleep(INTERVAL)
    return found


def _is_such(event: GroupEvent, wanted: dict[str, Any]) -> bool:
    wanted = dict(wanted)
    if isinstance(wanted.get("group"), str):
        if event.group.name != wanted.pop("group"):
            return False
    return all(getattr(event, key) == value for key, value in wanted.items())

"""The store for any channel layer: memberships in a database of the project."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, AsyncIterator, Awaitable, Callable, Mapping, Sequence, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, router

from channels_groups.conf import get_settings
from channels_groups.deadline import in_time
from channels_groups.exceptions import StoreUnavailable
from channels_groups.stores.base import (
    PAGE,
    Answer,
    BaseStore,
    Entry,
    Eviction,
    Findings,
    Holdings,
    Incarnation,
    Member,
    NodeState,
    Operation,
    Renewal,
    StoreRebuilding,
    Summary,
)

if not apps.is_installed("channels_groups.database"):
    raise ImproperlyConfigured(
        "The database store needs 'channels_groups.database' in INSTALLED_APPS."
    )

from .models import Book  # noqa: E402  (needs the app)
from .reader import Reader  # noqa: E402
from .tables import Tables  # noqa: E402
from .texts import Records, escape  # noqa: E402
from .vendors import get_vendor  # noqa: E402
from .worker import Worker  # noqa: E402

T = TypeVar("T")

#: Seconds until a call counts as unanswered; the contract allows two.
TIMEOUT = 1.5
#: Threads, and connections to the database, that read while there are consumers.
READERS = 2
#: Layers whose group_add() has taken effect when it returns, and runs no sync code.
KNOWN = (
    "channels.layers.InMemoryChannelLayer",
    "channels_redis.core.RedisChannelLayer",
)


class DatabaseStore(BaseStore):
    """Keep memberships beside any channel layer, in a database of the project: the
    one that its routers name for writing the app's models.

    A process that has consumers does this in threads of its own, with a connection
    each (READERS and two more). Any other one reads as Django's async queries do.
    """

    def __init__(self, alias: str, layer: Any) -> None:
        config = settings.CHANNEL_LAYERS[alias].get("CONFIG", {})
        records = Records(config.get("symmetric_encryption_keys"))
        self.layer = layer
        self.using: str = router.db_for_write(Book)
        self.lingers = get_settings(alias).grace > 0
        self.layer_confirms = _name(layer) in KNOWN
        self.layer_may_block = not self.layer_confirms
        self._vendor = get_vendor(self.using)
        self._tables = Tables(self.using, escape(alias), self._vendor, records)
        self._reader = Reader(self.using, escape(alias), records)
        self._lock = threading.Lock()
        self._attached = 0
        self._threads: _Threads | None = None
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._turns = WeakKeyDictionary()

    def shard(self, group: str) -> int:
        return 0

    def attach(self) -> None:
        with self._lock:
            self._attached += 1
            if self._threads is None:
                self._threads = _Threads(partial(Worker, self.using, self._vendor))

    async def detach(self) -> None:
        with self._lock:
            self._attached -= 1
            if self._attached:
                return
            threads, self._threads = self._threads, None
        if threads is not None:
            await threads.stop()

    # Written by nodes

    async def register(
        self, shard: int, node: Incarnation, epoch: str, lease: float
    ) -> str:
        known = await self._lease(self._tables.register, node, epoch, lease)
        if known is None:
            raise StoreRebuilding
        return known

    async def renew(
        self,
        shard: int,
        node: Incarnation,
        epoch: str,
        lease: float,
        renewal: float,
        holdings: Holdings = Holdings(),
    ) -> Renewal:
        renew = self._tables.renew
        return await self._lease(renew, node, epoch, lease, renewal, holdings)

    async def commit(
        self,
        shard: int,
        node: Incarnation,
        sequence: int,
        operations: Sequence[Operation],
        entries: Mapping[str, Sequence[Entry]],
        restore: bool = False,
    ) -> list[Answer]:
        commit = self._tables.commit
        return await self._write(commit, node, sequence, operations, entries, restore)

    async def evict(
        self,
        shard: int,
        node: Incarnation,
        sequence: int,
        dead: str,
        lease: float,
        renewal: float,
        limit: int,
    ) -> Eviction:
        evict = self._tables.evict
        return await self._write(evict, node, sequence, dead, lease, renewal, limit)

    async def release(self, shard: int, node: Incarnation) -> None:
        await self._lease(self._tables.release, node)

    async def forget(self, node: Incarnation) -> None:
        await self._lease(self._tables.forget, node)

    # Read by everybody

    async def count(self, group: str) -> int:
        return await self._read(self._reader.count, group)

    async def user_count(self, group: str) -> int:
        return await self._read(self._reader.user_count, group)

    async def users(self, group: str) -> set[str]:
        return await self._read(self._reader.users, group)

    async def member(self, group: str, id: str) -> Member | None:
        return await self._read(self._reader.member, group, id)

    async def summaries(self, shard: int, groups: Sequence[str]) -> list[Summary]:
        return await self._read(self._reader.summaries, groups)

    async def user_members(
        self, user_id: str, cursor: Any
    ) -> tuple[list[tuple[str, Member]], Any]:
        return await self._read(self._reader.user_members, user_id, cursor)

    async def group_nodes(self, group: str) -> list[str]:
        return await self._read(self._reader.group_nodes, group)

    async def node_members(
        self, group: str, node: str, cursor: str, size: int = PAGE
    ) -> tuple[list[Member], str]:
        return await self._read(self._reader.node_members, group, node, cursor, size)

    async def groups(
        self, prefix: str, cursor: Any
    ) -> tuple[list[tuple[str, int]], Any]:
        return await self._read(self._reader.groups, prefix, cursor)

    async def ranking(
        self, shard: int, first: int, size: int, ascending: bool = False
    ) -> list[tuple[str, int]]:
        return await self._read(self._reader.ranking, first, size, ascending)

    async def group_count(self) -> int:
        return await self._read(self._reader.group_count)

    async def membership_count(self) -> int:
        return await self._read(self._reader.membership_count)

    async def channels(self) -> list[str]:
        return await self._read(self._reader.channels)

    async def nodes(self) -> list[NodeState]:
        return await self._read(self._reader.nodes)

    # For whoever operates it

    async def watch(self, channel: str, seconds: float) -> None:
        await self._write(self._tables.watch, channel, seconds)

    async def verify(self, cursor: Any, mend: bool = False) -> tuple[Findings, Any]:
        return await self._write(self._tables.verify, cursor, mend)

    # Below

    async def _lease(self, call: Callable[..., T], *args: Any) -> T:
        async with self._using_threads() as threads:
            return await self._in_time(_do(threads.lease, call, *args))

    async def _write(self, call: Callable[..., T], *args: Any) -> T:
        async with self._using_threads() as threads:
            return await self._in_time(_do(threads.write, call, *args))

    async def _read(self, call: Callable[..., T], *args: Any) -> T:
        if self._threads is None:
            return await self._in_time(sync_to_async(call)(*args))
        async with self._using_threads() as threads:
            return await self._in_time(self._in_turn(threads.read, call, *args))

    async def _in_turn(
        self, workers: list[Worker], call: Callable[..., T], *args: Any
    ) -> T:
        loop = asyncio.get_running_loop()
        if loop not in self._turns:
            self._turns[loop] = asyncio.Semaphore(READERS)
        async with self._turns[loop]:
            worker = min(workers, key=lambda one: one.waiting)
            return await _do(worker, call, *args)

    @asynccontextmanager
    async def _using_threads(self) -> AsyncIterator[_Threads]:
        self.attach()
        try:
            assert self._threads
            yield self._threads
        finally:
            await self.detach()

    async def _in_time(self, call: Awaitable[T]) -> T:
        """Await an answer of the database; the only place that maps its errors."""
        try:
            return await in_time(call, TIMEOUT)
        except (Error, asyncio.TimeoutError) as error:
            why = str(error).strip() or type(error).__name__
            raise StoreUnavailable(f"{self} did not answer: {why}.") from error

    def __str__(self) -> str:
        return f"The membership store in DATABASES[{self.using!r}]"


class _Threads:
    """The threads of a process that has consumers."""

    def __init__(self, make_worker: Callable[[str], Worker]) -> None:
        #: Apart, so that no lease runs out behind a slow commit.
        self.lease = make_worker("groups: leases")
        self.write = make_worker("groups: writing")
        self.read = [make_worker("groups: reading") for _ in range(READERS)]

    async def stop(self) -> None:
        """Close their connections, but do not wait for a database that is away."""
        workers = [self.lease, self.write, *self.read]
        ends = [asyncio.wrap_future(worker.stop()) for worker in workers]
        await asyncio.wait(ends, timeout=TIMEOUT)


async def _do(worker: Worker, call: Callable[..., T], *args: Any) -> T:
    job = worker.submit(partial(call, *args))
    try:
        return await asyncio.wrap_future(job)
    finally:
        if not job.done():
            worker.give_up(job)


def _name(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"

"""Memberships that are written into the store directly."""

import time
from typing import Any

from channels_groups import evictor, writer
from channels_groups.manager import GroupManager
from channels_groups.stores.base import Entry, Incarnation, Join, Leave, Member

#: As long as those of channels_redis.
CHANNEL = f"specific.{'f' * 32}!"


class Filler:
    """A node that writes memberships into the store directly."""

    def __init__(
        self,
        manager: GroupManager,
        in_layer: bool = False,
        users: bool = False,
        restore: bool = True,
        number: int = 0,
    ) -> None:
        self._store = manager.store
        self._in_layer = in_layer
        self._users = users
        #: This is allowed at any time, also soon after the last part's flush.
        self._restore = restore
        self._joined: list[Join] = []
        self._node = Incarnation(f"filler-{number:05}", f"{CHANNEL}{number:032x}")
        self._sequence = 0
        self._count = 0

    async def __aenter__(self) -> "Filler":
        await self._store.register(0, self._node, "", 3600)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._store.release(0, self._node)

    async def fill(self, group: str, size: int) -> None:
        """Let the group have so many members."""
        await self.join([group] * (size - await self._store.count(group)))

    async def join(self, groups: list[str]) -> None:
        joins = [Join(name, self._member()) for name in groups]
        self._joined += joins
        await self._commit(joins)

    async def leave(self) -> None:
        """Take all out again."""
        joined, self._joined = self._joined, []
        await self._commit([Leave(one.group, one.member) for one in joined])

    async def expire(self) -> None:
        """Be dead, and not evicted yet."""
        await self._store.renew(0, self._node, "", 0, 0)

    async def evict(self) -> None:
        """Be evicted by another node."""
        other = Incarnation("survivor-000", CHANNEL + "f" * 32)
        await self._store.register(0, other, "", 3600)
        await self.expire()
        sequence, done = 0, False
        while not done:
            sequence += 1
            evicting = self._store.evict(
                0, other, sequence, self._node.id, 1, 0, evictor.BATCH
            )
            done = (await evicting).done
        await self._store.release(0, other)
        self._joined.clear()

    async def _commit(self, operations: list[Any]) -> None:
        for batch in writer.batches(operations):
            groups = {one.group for one in batch} if self._in_layer else ()
            entries = {one: [self._entry(one)] for one in groups}
            self._sequence += 1
            await self._store.commit(
                0, self._node, self._sequence, batch, entries, self._restore
            )

    def _entry(self, group: str) -> Entry:
        return Entry(f"groups.{group}", self._node.channel)

    def _member(self) -> Member:
        self._count += 1
        channel = f"{CHANNEL}{self._count:032x}"
        user = f"user-{self._count}" if self._users else None
        return Member(f"{self._count:012x}", channel, user, {}, time.time())

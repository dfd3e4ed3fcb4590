"""Ending the memberships of dead nodes, and telling of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Sequence

from .meters import METERS
from .stores.base import LINGERING

if TYPE_CHECKING:
    from .shard import Shard
    from .writer import Writer

logger = logging.getLogger("channels_groups")

#: Members that one call evicts. A script blocks the server for as long as it runs.
BATCH = 30


class Evictor:
    """Evicts dead nodes from one shard, a batch with each step of the writer.

    By the writer's task, since a leave that an eviction finds and those that the
    node commits itself have to be announced in the order of their revisions.
    """

    def __init__(self, shard: Shard, writer: Writer) -> None:
        self._shard = shard
        self._writer = writer
        self._store = shard.node.store
        self._dead: list[str] = []
        self._over: asyncio.Future[None] | None = None
        self._sequence = 0
        self._losses = 0
        #: A batch is under way, or its answer did not come: nobody else would hear
        #: of these members' leaves.
        self.unanswered = False

    @property
    def has_work(self) -> bool:
        return bool(self._dead)

    def begin(self, dead: Sequence[str]) -> None:
        """Evict nodes, if no others are just being evicted."""
        if dead and not self._dead:
            self._dead = list(dead)
            self._over = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Wait until all are out."""
        if self._over is not None:
            await asyncio.shield(self._over)

    async def step(self) -> None:
        """Evict a batch; again with the same number if no answer came."""
        node = self._writer.incarnation
        assert node
        settings = self._shard.node.settings
        if not self.unanswered:
            self._sequence += 1
        self.unanswered = True
        eviction = await self._store.evict(
            self._shard.index,
            node,
            self._sequence,
            self._dead[0],
            settings.lease,
            settings.renewal,
            BATCH,
        )
        self.unanswered = False
        self._losses += len(eviction.losses)
        reason = "expired" if self._dead[0] == LINGERING else "lost"
        for loss in eviction.losses:
            self._shard.announce_loss(loss, reason)
        if eviction.done:
            self._next()
        self._writer.discard(eviction.entries)

    def stop(self) -> None:
        """Leave those that have not been evicted to others."""
        self._dead.clear()
        self._losses = 0
        self._end()

    def _next(self) -> None:
        dead, about = self._dead[0], self._writer.lease.about
        if self._losses and dead != LINGERING:
            what = "A process was lost; %d of its memberships ended here."
            extra = {**about, "lost": dead, "memberships": self._losses}
            logger.warning(what, self._losses, extra=extra)
            for meter in METERS:
                meter.evicted(about["alias"])
        self._losses = 0
        del self._dead[0]
        if not self._dead:
            self._end()

    def _end(self) -> None:
        over, self._over = self._over, None
        if over and not over.done():
            over.set_result(None)

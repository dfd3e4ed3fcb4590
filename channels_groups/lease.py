"""A node's lease: renew, report, name the dead."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, AsyncContextManager

from .exceptions import StoreUnavailable
from .meters import METERS
from .receiver import RETRY
from .stores.base import Renewal

if TYPE_CHECKING:
    from .shard import Shard
    from .writer import Writer

logger = logging.getLogger("channels_groups")

#: Renewals in a row before a node may evict: after an outage all leases have run
#: out, and everybody gets the time to renew.
RENEWALS = 2


class Lease:
    """The heartbeat of one node in one shard.

    It renews the lease and has the nodes evicted whose lease has run out. It also
    keeps the log of outages: one line when one begins, one when it ends.
    """

    def __init__(self, shard: Shard, writer: Writer) -> None:
        self._shard = shard
        self._writer = writer
        self._store = shard.node.store
        self._settings = shard.node.settings
        #: What log records and meters are told of whose lease it is.
        self.about: dict[str, Any] = {"alias": shard.node.alias, "shard": shard.index}
        self._loop = shard.node.loop
        self._task: asyncio.Task[None] | None = None
        self._renewals = 0
        self._renewed = self._loop.time()
        self._waiting: list[asyncio.Future[None]] = []
        self._failed_at: float | None = None
        self._failing: set[object] = set()
        self._renewing = asyncio.Lock()
        #: What the store last failed with, until it answers again.
        self.error: StoreUnavailable | None = None

    def start(self) -> None:
        self._renewals = 0
        self._task = self._loop.create_task(
            self._beat(), name=f"renew the lease of shard {self._shard.index}"
        )

    async def stop(self) -> None:
        """Stop renewing."""
        if self._failed_at is not None:
            for meter in METERS:
                meter.available(**self.about)
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def no_renewal(self) -> AsyncContextManager[None]:
        """Return a context in which no renewal is under way."""
        return self._renewing

    async def renew(self) -> Renewal:
        """Renew once; let the shard start over if the store says so.

        Raise StoreUnavailable while this node takes a new identity.
        """
        writer = self._writer
        async with self._renewing:
            incarnation = writer.incarnation
            if incarnation is None:
                raise StoreUnavailable("This process is just joining anew.")
            renewal = await self._store.renew(
                self._shard.index,
                incarnation,
                writer.epoch,
                self._settings.lease,
                self._settings.renewal,
                writer.holdings(),
            )
        if writer.incarnation is not incarnation:
            return renewal  # It says nothing of the identity taken meanwhile.
        self._shard.reporter.know(renewal.watchers)
        for group, id in renewal.taken:
            self._shard.node.find_out(group, id)
        if renewal.state == "alive":
            writer.epoch = renewal.epoch
        else:
            writer.disown(renewal.state)
        if renewal.state != "alive" or renewal.reconnected:
            self._renewals = 0
        return renewal

    async def evict_overdue(self) -> None:
        """Evict whoever may be evicted now, and return when they are out."""
        while self._renewals < RENEWALS:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter
        await self._writer.evict((await self.renew()).overdue)

    def fail(self, what: str, error: StoreUnavailable) -> None:
        """Note that the store did not answer the writer or a heartbeat."""
        self._renewals = 0
        self.note(what, error)

    def note(self, what: object, error: StoreUnavailable) -> None:
        """Note what fails, be it the layer, which is no reason not to evict."""
        self.error = error
        self._failing.add(what)
        if self._failed_at is None:
            self._failed_at = self._loop.time()
            text = "Group membership is unavailable: %s"
            logger.error(text, error, extra=self.about)
            for meter in METERS:
                meter.unavailable(**self.about)

    def succeed(self, what: object) -> None:
        """Note that the store, or the layer, answered."""
        self._failing.discard(what)
        if self._failed_at is not None and not self._failing:
            self.error = None
            seconds = self._loop.time() - self._failed_at
            self._failed_at = None
            extra = {**self.about, "seconds": seconds}
            text = "Group membership is back after %.1f s."
            logger.warning(text, seconds, extra=extra)
            for meter in METERS:
                meter.available(**self.about)

    async def _beat(self) -> None:
        while True:
            try:
                await self._renew_and_evict()
                pause = self._settings.renewal
            except StoreUnavailable as error:
                self.fail("heartbeat", error)
                pause = min(RETRY, self._settings.renewal)
            except Exception:
                what = "A heartbeat failed; the next one follows."
                logger.exception(what, extra=self.about)
                pause = self._settings.renewal
            await asyncio.sleep(pause)

    async def _renew_and_evict(self) -> None:
        now = self._loop.time()
        if now - self._renewed > 3 * self._settings.renewal:
            # This process was frozen; others may have been too, as on a laptop.
            self._renewals = 0
        renewal = await self.renew()
        self._renewed = self._loop.time()
        self._shard.settle()
        self.succeed("heartbeat")
        if renewal.state != "alive" or renewal.reconnected:
            return
        self._renewals += 1
        if self._renewals >= RENEWALS:
            self._writer.begin_to_evict(renewal.overdue)
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)
        self._writer.refresh()

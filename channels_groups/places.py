"""The node's places in the layer's groups, taken and left beside the commits."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Awaitable, Callable, Hashable, Iterable

from .exceptions import StoreUnavailable
from .receiver import RETRY
from .relay import Relay
from .stores.base import Entry

if TYPE_CHECKING:
    from .lease import Lease
    from .membership import LocalGroup
    from .shard import Shard

logger = logging.getLogger("channels_groups")

#: What one lane has under way at once: a pool of redis-py 8 has 100 connections.
CALLS = 20
#: Groups that a heartbeat has entered again, at most.
BATCH = 250

Act = Callable[[], Awaitable[None]]


class Places:
    """Enters the layer's groups of a group, and leaves them, as it has members or not.

    What needs the same hosts of the layer is done in a lane of its own, so a host that
    is away holds up what needs it and nothing else, commits least of all. For one group
    there is one thing under way at a time.
    """

    def __init__(
        self,
        shard: Shard,
        lease: Lease,
        entered: Callable[[LocalGroup], None],
        settled: Callable[[], None],
    ) -> None:
        self._groups = shard.groups
        self._node = shard.node
        self._store = shard.node.store
        self._loop = shard.node.loop
        self._lease = lease
        self._index = shard.index
        self._tell_entered = entered
        self._tell_settled = settled
        self._lanes: dict[Hashable, Lane] = {}
        #: The entries of dead channels, which are to be taken out.
        self._dead: set[Entry] = set()
        #: When each group was entered, in that order.
        self._entered: dict[str, float] = {}
        self.relay = self.renew_relay()

    @property
    def has_work(self) -> bool:
        """Return whether something has to be done before the node may go.

        Not what is only tidiness, the dead's, if its host is away.
        """
        return any(
            lane.has_work and not (lane.failing and isinstance(hosts, int))
            for hosts, lane in self._lanes.items()
        )

    def renew_relay(self) -> Relay:
        """Go on with another channel of the node, when nothing is under way."""
        self.relay = Relay(self._node, self._index, self._groups)
        return self.relay

    def tend(self, group: LocalGroup) -> None:
        """Enter or leave the layer's groups, whichever a group needs."""
        self._lane_of(group).add(group.name, partial(self._tend, group))

    def answered_at(self, group: LocalGroup) -> float:
        """Return when the layer last did something that needs the same as a group."""
        return self._lane_of(group).answered_at

    def refresh(self) -> None:
        """Enter the groups again that the layer will soon have forgotten."""
        expiry = getattr(self._node.layer, "group_expiry", None)
        if not expiry:  # 0 is channels_postgres' for never.
            return
        # The next heartbeat must not find one that is past its half.
        oldest = self._loop.time() + self._node.settings.renewal - expiry / 2
        for name, entered in list(islice(self._entered.items(), BATCH)):
            if entered > oldest:
                break
            self._enter_again(self._groups[name])

    def enter_again(self, host: int) -> None:
        """Enter the groups again that a host of the layer may have forgotten."""
        for name in self._entered:
            group = self._groups[name]
            if any(self._store.host(one.group) == host for one in group.entries):
                self._enter_again(group)

    def discard(self, entries: Iterable[Entry]) -> None:
        """Take the channels of a dead node out of the layer's groups."""
        for entry in entries:
            self._dead.add(entry)
            lane = self._lane(self._store.host(entry.group))
            lane.add(entry, partial(self._discard, entry))

    def give_up_strays(self) -> None:
        """Leave what the layer could not be told to leave."""
        self._lane("strays").add("strays", self._give_up_strays)

    async def abandon(self) -> None:
        """Take this node's channel out of the layer's groups, as far as it is there."""
        self.discard([*self._dead, *self.relay.abandoned(self._groups.values())])
        await self.settle()

    async def settle(self) -> None:
        """Wait until all is done but for what needs a host that is away."""
        await asyncio.gather(*(lane.settle() for lane in self._lanes.values()))

    async def stop(self) -> None:
        """Break off what is under way, and forget what is to be done."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()))
        self._entered.clear()

    async def end(self) -> None:
        """Stop, and try once more to take the dead out.

        channels_redis.pubsub remembers them in the process, whoever else is there.
        """
        await self.stop()
        dead = list(self._dead)
        for start in range(0, len(dead), CALLS):
            last = map(self._discard, dead[start : start + CALLS])
            for error in await asyncio.gather(*last, return_exceptions=True):
                if error is not None:
                    logger.debug("A dead channel stays in a group.", exc_info=error)
                    return

    async def _tend(self, group: LocalGroup) -> None:
        if self._groups.get(group.name) is not group:
            pass  # Another one has its name, and its place.
        elif not group.members:
            await self._leave(group)
        elif not group.entered:
            await self._enter(group)
        elif group.stale:
            await self.relay.refresh(group)
            self._note_entered(group)

    async def _enter(self, group: LocalGroup) -> None:
        group.touched = True
        await self.relay.enter(group)
        self._note_entered(group)
        self._tell_entered(group)

    async def _leave(self, group: LocalGroup) -> None:
        """Leave the groups of one without members; it may get some meanwhile."""
        await self.relay.exit(group)
        self._entered.pop(group.name, None)
        if not group.members:
            self._groups.pop(group.name, None)

    def _note_entered(self, group: LocalGroup) -> None:
        group.stale = False
        self._entered.pop(group.name, None)
        self._entered[group.name] = self._loop.time()

    def _enter_again(self, group: LocalGroup) -> None:
        group.stale = True
        self.tend(group)

    async def _discard(self, entry: Entry) -> None:
        await self.relay.discard(entry)
        self._dead.discard(entry)

    async def _give_up_strays(self) -> None:
        await self.relay.give_up_strays()

    def _lane_of(self, group: LocalGroup) -> Lane:
        hosts = frozenset((0,))
        if self._store.shards > 1:
            hosts = frozenset(map(self._store.host, self.relay.groups_of(group.name)))
        return self._lane(hosts)

    def _lane(self, hosts: Hashable) -> Lane:
        lane = self._lanes.get(hosts)
        if lane is None:
            lane = self._lanes[hosts] = Lane(
                self._loop, self._lease, self._tell_settled
            )
        return lane


class Lane:
    """Does what needs the same hosts, some at once, and each until it succeeds.

    While it fails, one thing at a time tries if the hosts are there again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lease: Lease,
        settled: Callable[[], None],
    ) -> None:
        #: When something last succeeded.
        self.answered_at = float("-inf")
        self.failing = False
        self._loop = loop
        self._lease = lease
        self._tell_settled = settled
        self._work: dict[Hashable, Act] = {}
        self._task: asyncio.Task[None] | None = None
        #: Who waits until it fails or has nothing to do.
        self._settling: list[asyncio.Future[None]] = []

    @property
    def has_work(self) -> bool:
        return self._task is not None

    def add(self, key: Hashable, act: Act) -> None:
        """Do something, once more if it is under way."""
        self._work.setdefault(key, act)
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name="change layer groups")

    async def settle(self) -> None:
        """Wait until it fails or has nothing to do."""
        if self._task is not None and not self.failing:
            settling = self._loop.create_future()
            self._settling.append(settling)
            await settling

    async def stop(self) -> None:
        self._work.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._end()

    async def _run(self) -> None:
        while self._work:
            now = list(islice(self._work.items(), 1 if self.failing else CALLS))
            for key, _ in now:
                del self._work[key]
            acts = (act() for _, act in now)
            results = await asyncio.gather(*acts, return_exceptions=True)
            self.failing = False
            for (key, act), error in zip(now, results):
                if error is None:
                    self.answered_at = self._loop.time()
                else:
                    self._work.setdefault(key, act)
                    self._fail(error)
            if self.failing:
                await asyncio.sleep(RETRY)
        self._end()

    def _fail(self, error: BaseException) -> None:
        self.failing = True
        self._settle()
        if isinstance(error, StoreUnavailable):
            self._lease.note(self, error)
        else:
            what = "The layer's groups were not changed; it is tried again."
            logger.error(what, exc_info=error, extra=self._lease.about)

    def _end(self) -> None:
        self._task = None
        self.failing = False
        self._lease.succeed(self)
        self._settle()

    def _settle(self) -> None:
        settling, self._settling = self._settling, []
        for one in settling:
            if not one.done():
                one.set_result(None)
        self._tell_settled()

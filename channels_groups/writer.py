"""The one task that changes a node's part of a shard, and the node's identity there."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
    TypeVar,
)

from .evictor import Evictor
from .exceptions import ConnectionClosed, StoreUnavailable
from .lease import Lease
from .membership import ENDED, LocalGroup, Membership
from .places import Places
from .receiver import RETRY, find_strays
from .relay import Relay
from .stores.base import (
    Answer,
    Entry,
    Holdings,
    Incarnation,
    Join,
    LeaseLost,
    Leave,
    Operation,
    StoreRebuilding,
)

if TYPE_CHECKING:
    from .shard import Shard

T = TypeVar("T", bound=Operation)
logger = logging.getLogger("channels_groups")

#: What a commit may cost, see Load. A script blocks the server for as long as it runs.
BATCH = 100
CHANGES = {
    **{"created": 1, "joined": 1, "resumed": 1},
    **{"left": -1, "destroyed": -1, "lingering": -1, "taken": -1},
}


class Request:
    """An operation on its way to the store and back."""

    def __init__(
        self,
        operation: Operation,
        membership: Membership,
        reason: str = "",
        waiting: frozenset[object] = frozenset(),
    ) -> None:
        self.operation = operation
        self.membership = membership
        self.reason = reason
        #: The groups and connections that wait for this.
        self.waiting = waiting
        #: It is in a commit that the store has or may have seen.
        self.sent = False
        #: Nobody wants it any more; only as long as it is not sent.
        self.dropped = False
        #: The store was asked whether it is in order, because of this.
        self.audited = False
        self._answer: Answer | None = None
        #: There is nothing to announce, or it has been.
        self._announced = False
        #: Made when somebody has to wait: many a request is answered before.
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def answered(self) -> bool:
        """Whether the store has answered, or will not be asked."""
        return self._answer is not None or self.dropped

    def result(self) -> Answer:
        """Return the store's answer. Raise ConnectionClosed if it was not asked."""
        if self._answer is None:
            raise ConnectionClosed
        return self._answer

    def answer(self, answer: Answer) -> None:
        if self._answer is None:
            self._answer = answer
            self._wake()

    def drop(self) -> None:
        """End it without the store."""
        self.dropped = self._announced = True
        self._wake()

    def finish(self) -> None:
        """Note that there is nothing to announce, or that it has been."""
        self._announced = True
        self._wake()

    async def wait(self, timeout: float) -> bool:
        """Wait for the answer; return whether it is here.

        asyncio.wait() would do, in twice the time and one turn of the loop more.
        """
        if not self.answered:
            waiter = self._wait()
            timer = asyncio.get_running_loop().call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        return self.answered

    async def wait_announced(self) -> None:
        """Wait until the signals have been fired."""
        while not self._announced:
            await self._wait()

    def _wait(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Load:
    """How much a commit is: an operation is 1, its user another, a group 2 more."""

    def __init__(self) -> None:
        self._groups: set[str] = set()
        self._cost = 0

    def add(self, operation: Operation) -> None:
        self._cost += 1 + (operation.member.user_id is not None)
        if operation.group not in self._groups:
            self._groups.add(operation.group)
            self._cost += 2

    @property
    def is_full(self) -> bool:
        return self._cost >= BATCH


def batches(operations: Iterable[T]) -> Iterator[list[T]]:
    """Cut operations up into commits, but not a join and the same member's leave."""
    batch, load = list[T](), Load()
    for operation in operations:
        if load.is_full and operation.member is not batch[-1].member:
            yield batch
            batch, load = [], Load()
        batch.append(operation)
        load.add(operation)
    if batch:
        yield batch


class Writer:
    """Commits a node's joins and leaves to one shard.

    One commit is under way at a time and the rest gathers for the next, so the
    order of operations is the order of their answers and of their signals. So is
    the node's identity changed, between commits: taken, lost, written back.

    The node enters the layer's groups of a group before its first member is in the
    store, and leaves them after the last is out. Requests of a group that is not
    entered wait with it, in order, and the others go on.

    While the task has nothing to do, whoever brings an operation may be the
    writer for it, in a task of their own, which spares two turns of the loop.
    What they leave undone, being cancelled or without an answer, the task does.
    """

    def __init__(self, shard: Shard) -> None:
        self.epoch = ""
        self.incarnation: Incarnation | None = None
        #: When the store last answered, or waited itself for the living nodes to
        #: write back what was lost.
        self.answered_at = float("-inf")
        self.lease = Lease(shard, self)
        self._evictor = Evictor(shard, self)
        self._has_just_evicted = False
        self._shard = shard
        self._node = shard.node
        self._store = shard.node.store
        self._loop = shard.node.loop
        self._groups = shard.groups
        self._places = Places(shard, self.lease, self._go_on, self._note_settled)
        self._sequence = 0
        #: What the store has of this node, by its answers.
        self._acknowledged = 0
        self._size = 0
        #: Groups to be audited by the next renewals, in turn.
        self._auditing: deque[str] = deque()
        self._queue: deque[Request] = deque()
        self._batch: list[Request] = []
        #: What a renewal said of this incarnation: "lost" or "emptied".
        self._disowned = ""
        self._wake = asyncio.Event()
        #: The task waits, and nobody else writes.
        self._idle = False
        #: Somebody else writes; the task is woken afterwards.
        self._lent = False
        self._closing = False
        self._task = self._loop.create_task(
            self._write(), name=f"write to shard {shard.index}"
        )

    async def commit(self, request: Request) -> None:
        """Commit an operation now, or submit it. Return without an answer as well."""
        group = self._groups.get(request.operation.group)
        if not self._idle or group is None or not group.entered:
            self.submit(request)
            return
        self._idle, self._lent = False, True
        self._queue.append(request)
        try:
            await self._attempt(self._commit_at_once)
        finally:
            self._lent = False
            if self._has_work():
                self._wake.set()
            else:
                self._idle = True

    @property
    def _relay(self) -> Relay:
        return self._places.relay

    def last_answer(self, request: Request) -> float:
        """Return when that which a request waits for last answered anybody."""
        group = self._groups.get(request.operation.group)
        if group is None or not group.waiting:
            return self.answered_at
        return self._places.answered_at(group)

    def submit(self, request: Request) -> None:
        """Put an operation into the next commit but one, at the latest."""
        self._queue.append(request)
        self._notify()

    def drop(self, request: Request) -> None:
        """Take an operation back that was not sent.

        It does not wait in the queue for a store that is away, as thousands may.
        """
        request.drop()
        group = self._groups.get(request.operation.group)
        waits = group is not None and request in group.waiting
        with suppress(ValueError):  # It is in the batch, which goes without it.
            (group.waiting if group and waits else self._queue).remove(request)

    def leave_layer(self, group: LocalGroup) -> None:
        """Take the node out of the layer's groups of a group without members."""
        if group.touched:
            self._places.tend(group)
        else:
            del self._groups[group.name]

    def disown(self, state: str) -> None:
        """Take a new identity ("lost"), or write everything back ("emptied")."""
        if self.incarnation and not self._disowned:
            self._disowned = state
            self._notify()

    def refresh(self) -> None:
        """Enter the groups again that the layer will soon have forgotten.

        And leave those that it could not be told to leave.
        """
        self._find_strays()
        self._places.refresh()

    def enter_again(self, host: int) -> None:
        """Enter the groups again that a host of the layer may have forgotten."""
        self._places.enter_again(host)

    def begin_to_evict(self, dead: Sequence[str]) -> None:
        """Evict dead nodes between commits."""
        if dead:
            self._evictor.begin(dead)
            self._notify()

    async def evict(self, dead: Sequence[str]) -> None:
        """Evict dead nodes, and return when they are out."""
        await self._evictor.wait()  # Until others are out, none are begun with.
        self.begin_to_evict(dead)
        await self._evictor.wait()

    def discard(self, entries: Iterable[Entry]) -> None:
        """Take a dead node's channels out of the layer's groups."""
        self._places.discard(entries)

    async def close(self) -> None:
        """Write what is left to write, then give up the lease."""
        self._closing = True
        self._notify()
        await asyncio.shield(self._task)

    async def abandon(self) -> None:
        """Give up the lease; the task has been cancelled, and writes nothing more."""
        if self.incarnation:
            try:
                await self._store.release(self._shard.index, self.incarnation)
            except StoreUnavailable:
                logger.debug("A lease was left to run out.", exc_info=True)

    # The task

    async def _write(self) -> None:
        while not self._is_finished():
            if not await self._attempt(self._step):
                await asyncio.sleep(RETRY)
        await self._end()

    async def _attempt(self, act: Callable[[], Awaitable[None]]) -> bool:
        """Do something; return whether it succeeded."""
        try:
            await act()
        except StoreRebuilding:
            self.answered_at = self._loop.time()
        except StoreUnavailable as error:
            self.lease.fail("writer", error)
        except LeaseLost:
            # While it was written back; the next try registers once more.
            logger.debug("The writer lost its lease again.", exc_info=True)
        except Exception:
            what = "The membership writer failed; it tries again."
            logger.exception(what, extra=self.lease.about)
        else:
            self.lease.succeed("writer")
            return True
        return False

    async def _step(self) -> None:
        if self.incarnation is None:
            await self._register()
        elif self._disowned == "emptied":
            await self._write_back()
        elif self._batch:
            await self._commit()
        elif self._evictor.unanswered:
            await self._evictor.step()
        elif self._disowned:
            await self._be_reborn()
        elif self._is_evicting():
            await self._evictor.step()
        elif self._queue:
            self._gather()
        else:
            self._wake.clear()
            self._idle = True
            await self._wake.wait()

    def _has_work(self) -> bool:
        """Return whether a step would do more than to wait."""
        return any(
            (
                *(self._queue, self._batch, self._evictor.has_work),
                *(self._disowned, self._closing),
            )
        )

    def _notify(self) -> None:
        """Wake the task, now or when who writes in its place is through."""
        if not self._lent:
            self._idle = False
            self._wake.set()

    def _is_evicting(self) -> bool:
        """Return whether to evict now, which takes turns with commits."""
        self._has_just_evicted = self._evictor.has_work and not (
            self._has_just_evicted and self._queue
        )
        return self._has_just_evicted

    def _is_finished(self) -> bool:
        return self._closing and not (
            self._evictor.unanswered
            or self._queue
            or self._batch
            or self._places.has_work
            or self._shard.memberships()
            or self._find_strays()
        )

    async def _end(self) -> None:
        self._evictor.stop()
        await self._places.end()
        await self.lease.stop()
        await self._relay.stop()
        await self.abandon()

    # Commits

    def _gather(self) -> None:
        """Take the next batch out of the queue; it is none if all was dropped or waits.

        A leave comes in a later one than its join, whose answer may give the
        membership the id of one that is resumed.
        """
        joining, load = set(), Load()
        while self._queue and not load.is_full:
            request = self._queue[0]
            if isinstance(request.operation, Leave):
                if request.membership in joining:
                    break
                member = request.membership.member
                if member is not request.operation.member:
                    request.operation = replace(request.operation, member=member)
            self._queue.popleft()
            if not (request.dropped or self._must_wait(request)):
                self._batch.append(request)
                load.add(request.operation)
                if isinstance(request.operation, Join):
                    joining.add(request.membership)
        self._sequence += bool(self._batch)

    def _must_wait(self, request: Request) -> bool:
        """Let a request wait until the layer's groups of its group are entered."""
        group = self._groups.get(request.operation.group)
        if group is None or group.entered or not group.members:
            return False
        group.waiting.append(request)
        self._places.tend(group)
        return True

    def _go_on(self, group: LocalGroup) -> None:
        """Commit what has waited for a group, before what has come since."""
        if group.waiting:
            self._queue.extendleft(reversed(group.waiting))
            group.waiting.clear()
            self._notify()

    async def _commit(self) -> None:
        """Commit the batch; again with the same number if no answer came."""
        if not self._batch[0].sent:
            self._batch = [one for one in self._batch if not one.dropped]
        try:
            await self._commit_batch()
        except LeaseLost:
            await self._find_out()

    async def _commit_at_once(self) -> None:
        """Commit what has just been put into the empty queue."""
        self._gather()
        try:
            await self._commit_batch()
        except LeaseLost:
            logger.debug("The writer's task finds out why.", exc_info=True)

    async def _commit_batch(self) -> None:
        assert self.incarnation
        operations = [request.operation for request in self._batch]
        for request in self._batch:
            request.sent = True
        answers = await self._store.commit(
            self._shard.index,
            self.incarnation,
            self._sequence,
            operations,
            self._entries(operations),
        )
        self.answered_at = self._loop.time()
        batch, self._batch = self._batch, []
        self._acknowledge(operations, answers)
        doubtful = batch[len(answers) :]
        for request, answer in zip(batch, answers):
            if self._is_doubtful(request, answer):
                doubtful.append(request)
            else:
                self._shard.apply(request, answer)
        if doubtful:
            await self._audit(doubtful)

    def _acknowledge(
        self,
        operations: Sequence[Operation],
        answers: list[Answer],
        restored: bool = False,
    ) -> None:
        """Note what the store has now."""
        self._acknowledged = self._sequence
        for operation, answer in zip(operations, answers):
            change = CHANGES.get(answer.outcome, 0)
            if restored and isinstance(operation, Join):
                # It may be there, from a time before that was cut short.
                change = int(answer.outcome != "elsewhere")
            self._size += change
            group = self._groups.get(operation.group)
            if group:
                group.size += change

    def _is_doubtful(self, request: Request, answer: Answer) -> bool:
        """Return whether the store has lost a membership that it had answered for."""
        is_join = isinstance(request.operation, Join)
        is_missing = not is_join and answer.outcome == "unchanged"
        return is_missing and request.membership.committed and not request.audited

    async def _audit(self, requests: list[Request]) -> None:
        """Try requests again after renewals that look at their groups, one each."""
        for request in requests:
            request.sent = False
        self._queue.extendleft(reversed(requests))
        groups = {request.operation.group for request in requests}
        self._auditing.extendleft(groups)
        damaged = False
        for _ in groups:
            if not self._disowned:
                damaged |= (await self.lease.renew()).damaged
        if damaged:
            await asyncio.sleep(RETRY)
        for request in requests:
            request.audited = not damaged

    def holdings(self) -> Holdings:
        """Return what the store should have, with the next group in turn.

        There is always one, so that a renewal takes the same whatever this node holds;
        a group without a name has no members anywhere.
        """
        if not self._auditing:
            self._auditing.extend(self._groups)
        audited = LocalGroup("")
        while self._auditing and not audited.name:
            audited = self._groups.get(self._auditing.popleft(), audited)
        member = audited.next_audited()
        groups = {audited.name: (audited.size, member.user_id if member else None)}
        ids = {audited.name: member.id} if member else {}
        connections = len(self._node.connections)
        return Holdings(self._acknowledged, self._size, groups, connections, ids)

    async def _find_out(self) -> None:
        """Ask the store why it takes nothing from this node; the next step acts on it.

        It is alive if only its connection was lost: the renewal has mended that.
        """
        renewal = await self.lease.renew()
        if renewal.state == "alive" and not renewal.reconnected:
            await asyncio.sleep(RETRY)
        elif renewal.state == "lost":
            await self._be_reborn()

    # The layer

    def _find_strays(self) -> bool:
        """Look for what the layer could not be told to leave, as the store was away."""
        found = any(find_strays(self._node.layer))
        if found:
            self._places.give_up_strays()
        return found

    def _note_settled(self) -> None:
        """Nothing more has to be done in the layer, or can be."""
        if self._closing:
            self._notify()

    def _entries(self, operations: Iterable[Operation]) -> dict[str, list[Entry]]:
        names = {operation.group for operation in operations}
        groups = {name: self._groups.get(name) for name in names}
        return {name: group.entries if group else [] for name, group in groups.items()}

    # Identity

    async def _register(self) -> None:
        """Take a new identity: begin to listen, then tell the store."""
        if not self._relay.started:
            await self._relay.start()
        id, channel = secrets.token_urlsafe(9), self._relay.channel
        incarnation = Incarnation(id, channel, self._node.process)
        self.epoch = await self._take_lease(incarnation, "")
        self.incarnation, self._disowned = incarnation, ""
        self._sequence = self._acknowledged = self._size = 0
        self.lease.start()

    async def _take_lease(self, incarnation: Incarnation, epoch: str) -> str:
        """Register; each call that is refused clears away some void data."""
        index, lease = self._shard.index, self._node.settings.lease
        while True:
            try:
                return await self._store.register(index, incarnation, epoch, lease)
            except StoreRebuilding:
                self.answered_at = self._loop.time()

    async def _be_reborn(self) -> None:
        """Leave the old identity to those who evicted it, and begin again.

        They told of every leave, also of those that were under way here.
        """
        if self._evictor.unanswered:  # In the old identity's name.
            await self._evictor.step()
        what = "This process lost its lease; its connections join again."
        logger.warning(what, extra=self.lease.about)
        self._evictor.stop()
        await self.lease.stop()
        await self._places.settle()
        await self._places.stop()
        await self._places.abandon()
        await self._relay.stop()
        self._places.renew_relay()
        if self.incarnation:
            await self._store.forget(self.incarnation)
        self.incarnation = None
        for group in self._groups.values():
            group.entered = False
            group.size = 0
        waiting = [one for group in self._groups.values() for one in group.waiting]
        for group in list(self._groups.values()):
            group.waiting.clear()
            if not group.members:
                self.leave_layer(group)
        unanswered = [*self._batch, *waiting, *self._queue]
        unanswered = [one for one in unanswered if not one.dropped]
        self._batch = []
        for request in unanswered:
            request.sent = False
            if isinstance(request.operation, Leave):
                self._shard.forget(request.membership)
        for request in unanswered:
            if request.membership.state is ENDED:
                request.drop()
        held = [one for one in self._shard.memberships() if one.committed]
        for membership in held:
            membership.committed = False  # Not to be written back without signals.
        lingers = self._store.lingers
        self._queue = deque(Request(_rejoin(one, lingers), one) for one in held)
        self._queue.extend(one for one in unanswered if not one.dropped)

    async def _write_back(self) -> None:
        """Give an emptied store what this node holds, without a signal.

        In this order: hear oneself, so that the layer works; the layer's groups;
        the store. What was under way is decided afterwards, by what is there then.
        What needs another host that is away is not waited for.
        """
        assert self.incarnation
        index = self._shard.index
        try:
            await self._relay.hear()
        except StoreUnavailable:
            if self._store.shards == 1:
                raise
        self._node.enter_again(index)
        for group in list(self._groups.values()):
            if group.members:
                group.entered = False
                self._places.tend(group)
        await self._places.settle()
        async with self.lease.no_renewal():  # It would miss what is not written yet.
            epoch = await self._take_lease(self.incarnation, self.epoch)
            self._acknowledged = self._size = 0
            for group in self._groups.values():
                group.size = 0
        for batch in batches(self._held()):
            self._sequence += 1
            answers = await self._store.commit(
                index,
                self.incarnation,
                self._sequence,
                batch,
                self._entries(batch),
                restore=True,
            )
            self._acknowledge(batch, answers, restored=True)
            for operation, answer in zip(batch, answers):
                if answer.outcome == "elsewhere":
                    self._shard.give_up(operation.group, operation.member.id)
        self._sequence += bool(self._batch)
        self.epoch, self._disowned = epoch, ""
        what = "The membership store was empty; it was written again."
        logger.warning(what, extra=self.lease.about)

    def _held(self) -> list[Operation]:
        """Return what makes an emptied store hold what this node does.

        What lingers is joined and left once more, both in one batch; the store leaves
        out what another node has resumed.
        """
        held: list[Operation] = []
        now = self._loop.time()
        for name, member, until in self._shard.lingering.values():
            held.append(Join(name, member, resume=(member.id,)))
            held.append(Leave(name, member, grace=max(until - now, 0.001)))
        lingers = self._store.lingers
        for one in self._shard.memberships():
            if one.committed:
                held.append(_rejoin(one, lingers))
        return held


def _rejoin(membership: Membership, lingers: bool) -> Join:
    """Return a join as the same member, if no other node has gone on with it."""
    name, member = membership.group.name, membership.member
    resume = (member.id,) if lingers else None
    return Join(name, member, None, membership.told, resume)

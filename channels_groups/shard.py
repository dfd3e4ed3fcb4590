"""A node's part in one shard of the store: its identity, its groups, its writer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Iterable

from . import signals
from .announcer import Announcement, check_not_announcing
from .exceptions import ConnectionClosed, GroupFull, StoreUnavailable
from .lease import Lease
from .membership import ENDED, JOINED, JOINING, LEAVING, LocalGroup, Membership
from .receiver import RETRY
from .relay import TIMEOUT, Relay, gather_all
from .stores.base import (
    Answer,
    Entry,
    Incarnation,
    Join,
    LeaseLost,
    Leave,
    Loss,
    Operation,
    StoreRebuilding,
)

if TYPE_CHECKING:
    from .node import Node

logger = logging.getLogger("channels_groups")

#: Operations in one commit. A script blocks the server for as long as it runs.
BATCH = 100


class Request:
    """An operation on its way to the store and back."""

    def __init__(
        self, operation: Operation, membership: Membership, reason: str = ""
    ) -> None:
        loop = asyncio.get_running_loop()
        self.operation = operation
        self.membership = membership
        self.reason = reason
        self.answered: asyncio.Future[Answer] = loop.create_future()
        self.announced: asyncio.Future[None] = loop.create_future()
        self.waiting: frozenset[str] = frozenset()
        #: It is in a commit that the store has or may have seen.
        self.sent = False
        #: Nobody wants it any more; only as long as it is not sent.
        self.dropped = False

    def answer(self, answer: Answer) -> None:
        if not self.answered.done():
            self.answered.set_result(answer)

    def skip(self) -> None:
        """End it without an effect."""
        self.answer(Answer("unchanged", 0, 0, 0, False))
        if not self.announced.done():
            self.announced.set_result(None)


class Shard:
    """One writer task does everything that changes this node's part of the shard.

    One commit is under way at a time and the rest gathers for the next, so the
    order of operations is the order of their answers and of their signals. The
    node's place in the layer's groups is changed between commits, by the same
    task: before the first member of a group is in the store, after the last is
    out.
    """

    def __init__(self, node: Node, index: int) -> None:
        self.node = node
        self.index = index
        self.store = node.store
        self.groups: dict[str, LocalGroup] = {}
        self.epoch = ""
        self.incarnation: Incarnation | None = None
        self.lease = Lease(self)
        self._relay = self._make_relay()
        self._sequence = 0
        self._queue: deque[Request] = deque()
        self._batch: list[Request] = []
        self._left: dict[str, LocalGroup] = {}
        self._unregistered = ""
        #: When each group was entered, in that order, and those to enter again.
        self._entered: dict[str, float] = {}
        self._stale: list[str] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._writer = node.loop.create_task(
            self._write(), name=f"write to shard {index}"
        )

    # Called by the node

    async def join(self, membership: Membership, limit: int | None) -> None:
        """Make a membership true.

        Raise GroupFull, ConnectionClosed, or StoreUnavailable. In each case, and
        if cancelled, no membership is left, be it that one has to be ended again.
        """
        waiting = check_not_announcing(membership.group.name)
        answer = await self._join(membership, limit, waiting)
        if answer.outcome == "full" and await self._evict_for(membership, answer):
            answer = await self._join(membership, limit, waiting)
        if answer.outcome == "full":
            raise GroupFull(f"Group {membership.group.name!r} is full.")
        if membership.connection.ended:
            raise ConnectionClosed

    def leave(self, membership: Membership, reason: str) -> Request | None:
        """End a membership; return what to wait for, or None.

        It is not lost while the store is away: the writer goes on until it is done.
        """
        if membership.state not in (JOINING, JOINED):
            return None
        request = membership.request
        if request and not request.sent and not membership.committed:
            self._drop(request)
            return None
        membership.state = LEAVING
        leave = Leave(membership.group.name, membership.member, membership.told)
        return self._submit(Request(leave, membership, reason))

    async def wait(self, request: Request) -> None:
        """Wait for a leave, but not for a store that is away."""
        await asyncio.wait([request.answered], timeout=TIMEOUT)
        if request.answered.done():
            await asyncio.shield(request.announced)
        else:
            request.membership.silence()

    async def close(self) -> None:
        """Write what is left to write, then give up the lease."""
        self._closing = True
        self._wake.set()
        await asyncio.shield(self._writer)

    # Called by the lease

    def start_over(self, state: str) -> None:
        """Let the writer take a new identity ("lost") or write back ("emptied")."""
        if not self._unregistered and self.incarnation:
            self._unregistered = state
            self._wake.set()

    def refresh(self) -> None:
        """Let the writer enter groups again that the layer will soon have forgotten."""
        expiry = getattr(self.node.layer, "group_expiry", None)
        if expiry is None or self._stale:
            return
        oldest = self.node.loop.time() - expiry / 2
        for name, entered in self._entered.items():
            if entered > oldest or len(self._stale) == BATCH:
                break
            self._stale.append(name)
        if self._stale:
            self._wake.set()

    async def discard(self, entries: Iterable[Entry]) -> None:
        """Take a dead node's channels out of the layer's groups."""
        await gather_all(self._relay.discard(entry) for entry in entries)

    def announce_loss(self, loss: Loss) -> None:
        """Fire the signals of a dead node's member, and tell the living ones."""
        manager = self.node.manager
        group = manager.group(loss.group)
        arguments = _arguments(loss.answer)
        arguments.update(group=group, connection=manager.connection(loss.member, group))
        arguments.update(reason="lost")
        fired = [(signals.group_leave, arguments)]
        self._announce(group, type(manager), fired, loss.answer, None)
        if loss.answer.told:
            self.node.changes.add("left", loss.group, loss.member, loss.answer)

    # The writer

    async def _write(self) -> None:
        while not self._is_finished():
            try:
                await self._step()
            except StoreRebuilding:
                await asyncio.sleep(RETRY)
            except StoreUnavailable as error:
                self.lease.fail(error)
                await asyncio.sleep(RETRY)
            except Exception:
                logger.exception("The membership writer failed; it goes on.")
                await asyncio.sleep(RETRY)
        await self._end()

    async def _step(self) -> None:
        if self.incarnation is None:
            await self._register()
        elif self._batch:
            await self._commit()
        elif self._unregistered:
            await self._recover()
        elif self._left:
            await self._exit()
        elif self._stale:
            await self._refresh()
        elif self._gather():
            await self._commit()
        else:
            self._wake.clear()
            await self._wake.wait()

    def _is_finished(self) -> bool:
        return self._closing and not (
            self._queue or self._batch or self._left or self._memberships()
        )

    async def _end(self) -> None:
        await self.lease.stop()
        await self._relay.stop()
        if self.incarnation:
            try:
                await self.store.release(self.index, self.incarnation)
            except StoreUnavailable:
                logger.debug("A lease was left to run out.", exc_info=True)

    async def _register(self) -> None:
        """Take a new identity: begin to listen, then tell the store."""
        if not self._relay.channel:
            await self._relay.start()
        incarnation = Incarnation(secrets.token_urlsafe(9), self._relay.channel)
        lease = self.node.settings.lease
        epoch = await self.store.register(self.index, incarnation, "", lease)
        self.incarnation, self.epoch, self._sequence = incarnation, epoch, 0
        self._unregistered = ""
        self.lease.start()

    def _gather(self) -> bool:
        """Take the next batch out of the queue."""
        while self._queue and len(self._batch) < BATCH:
            request = self._queue.popleft()
            if not request.dropped:
                self._batch.append(request)
        self._sequence += bool(self._batch)
        return bool(self._batch)

    async def _commit(self) -> None:
        assert self.incarnation
        await self._enter({request.operation.group for request in self._batch})
        if not self._batch[0].sent:
            self._batch = [one for one in self._batch if not one.dropped]
        operations = [request.operation for request in self._batch]
        for request in self._batch:
            request.sent = True
        try:
            answers = await self.store.commit(
                self.index,
                self.incarnation,
                self._sequence,
                operations,
                self._entries(operations),
            )
        except LeaseLost:
            await self._find_out()
            return
        self.lease.succeed()
        batch, self._batch = self._batch, []
        for request, answer in zip(batch, answers):
            self._apply(request, answer)

    async def _enter(self, names: Iterable[str]) -> None:
        groups = [self.groups[name] for name in names if name in self.groups]
        groups = [one for one in groups if not one.entered and one.members]
        await gather_all(self._relay.enter(group) for group in groups)
        for group in groups:
            self._entered[group.name] = self.node.loop.time()

    async def _exit(self) -> None:
        """Take the node out of the layer's groups that it has no members of."""
        left = [group for group in self._left.values() if not group.members]
        await gather_all(self._relay.exit(group) for group in left)
        for group in left:
            self._entered.pop(group.name, None)
            if not group.members:
                self.groups.pop(group.name, None)
            del self._left[group.name]

    async def _refresh(self) -> None:
        """Add the node to the layer's groups again, before the layer forgets it."""
        stale, self._stale = self._stale, []
        groups = [self.groups[name] for name in stale if name in self.groups]
        await gather_all(self._relay.refresh(group) for group in groups)
        for group in groups:
            self._entered.pop(group.name, None)
            self._entered[group.name] = self.node.loop.time()

    def _entries(self, operations: Iterable[Operation]) -> dict[str, list[Entry]]:
        names = {operation.group for operation in operations}
        return {
            name: self.groups[name].entries for name in names if name in self.groups
        }

    # Answers

    def _apply(self, request: Request, answer: Answer) -> None:
        membership = request.membership
        outcome = answer.outcome
        if isinstance(request.operation, Leave) or outcome == "full":
            self._forget(membership)
        elif membership.state is JOINING:
            membership.admit(answer.revision)
        else:
            membership.committed = True
            membership.revision = answer.revision
        request.answer(answer)
        if outcome in ("full", "unchanged"):
            request.skip()
        else:
            self._tell(request, answer)

    def _tell(self, request: Request, answer: Answer) -> None:
        """Fire the signals of a change and tell the members."""
        membership = request.membership
        group, manager = membership.group, membership.group.manager
        arguments = _arguments(answer)
        arguments.update(group=group, connection=membership.public)
        joined = isinstance(request.operation, Join)
        if joined:
            fired = [(signals.group_join, arguments)]
        else:
            arguments.update(reason=request.reason)
            fired = [(signals.group_leave, arguments)]
        self._announce(group, type(manager), fired, answer, request)
        if answer.told:
            kind = "joined" if joined else "left"
            self.node.changes.add(kind, group.name, membership.member, answer)
        if not joined and membership.told and not membership.connection.ended:
            membership.connection.tell(self.node.changes.own_leave(membership, answer))

    def _announce(
        self,
        group: Any,
        sender: type,
        fired: list[tuple[Any, dict[str, Any]]],
        answer: Answer,
        request: Request | None,
    ) -> None:
        about = {"group": group, "revision": answer.revision}
        if answer.outcome == "created":
            fired.insert(0, (signals.group_created, about))
        elif answer.outcome == "destroyed":
            fired.append((signals.group_destroyed, about))
        finished = request.announced if request else self.node.loop.create_future()
        waiting = request.waiting if request else frozenset()
        announcement = Announcement(sender, fired, finished, waiting)
        self.node.announcer.announce(group.name, announcement)

    # Requests

    async def _join(
        self, membership: Membership, limit: int | None, waiting: frozenset[str]
    ) -> Answer:
        self._remember(membership)
        join = Join(membership.group.name, membership.member, limit, membership.told)
        request = membership.request = self._submit(Request(join, membership))
        request.waiting = waiting
        try:
            await asyncio.wait([request.answered], timeout=TIMEOUT)
            if not request.answered.done():
                raise StoreUnavailable(
                    f"{self.store} did not answer in time."
                ) from self.lease.error
            answer = request.answered.result()
            await asyncio.shield(request.announced)
            return answer
        except BaseException:
            self.leave(membership, "left")
            raise

    def _submit(self, request: Request) -> Request:
        self._queue.append(request)
        self._wake.set()
        return request

    def _drop(self, request: Request) -> None:
        """Take back a join that the store has not seen."""
        request.dropped = True
        self._forget(request.membership)
        if not request.answered.done():
            request.answered.set_exception(ConnectionClosed())
            request.answered.exception()
        request.skip()

    # The local truth

    def _remember(self, membership: Membership) -> None:
        name = membership.group.name
        group = self.groups.setdefault(name, LocalGroup(name))
        group.members[membership] = None
        membership.begin()

    def _forget(self, membership: Membership) -> None:
        membership.end()
        group = self.groups.get(membership.group.name)
        if group and membership in group.members:
            del group.members[membership]
            if not group.members:
                self._left[group.name] = group
                self._wake.set()

    def _memberships(self) -> list[Membership]:
        return [one for group in self.groups.values() for one in group.members]

    # Identity

    async def _find_out(self) -> None:
        """Ask the store why it does not know this node."""
        renewal = await self.lease.renew()
        if renewal.state == "alive":
            raise StoreUnavailable("The membership store is not sure of this node.")
        await self._recover()

    async def _recover(self) -> None:
        """Do what start_over() asked for."""
        state = self._unregistered
        if state == "emptied":
            await self._write_back()
        else:
            await self._be_reborn()
        self._unregistered = ""

    async def _be_reborn(self) -> None:
        """Leave the old identity to those who evicted it, and begin again.

        They told of every leave, also of those that were under way here.
        """
        logger.warning("This process lost its lease; its connections join again.")
        await self.lease.stop()
        await self._relay.stop()
        self._relay = self._make_relay()
        self.incarnation = None
        for group in self.groups.values():
            group.entered = False
        unanswered = [one for one in [*self._batch, *self._queue] if not one.dropped]
        self._batch = []
        for request in unanswered:
            request.sent = False
            if isinstance(request.operation, Leave):
                self._forget(request.membership)
        ended = [one for one in unanswered if one.membership.state is ENDED]
        for request in ended:
            self._drop(request)
        again = [one for one in self._memberships() if one.committed]
        self._queue = deque(Request(_rejoin(one), one) for one in again)
        self._queue.extend(one for one in unanswered if not one.dropped)

    async def _write_back(self) -> None:
        """Give an emptied store what this node holds, without a signal."""
        assert self.incarnation
        lease = self.node.settings.lease
        self.epoch = await self.store.register(
            self.index, self.incarnation, self.epoch, lease
        )
        for group in self.groups.values():
            group.entered = False
        await self._relay.hear()
        await self._enter(list(self.groups))
        held = [_rejoin(one) for one in self._memberships() if one.committed]
        for start in range(0, len(held), BATCH):
            self._sequence += 1
            joins = held[start : start + BATCH]
            await self.store.commit(
                self.index,
                self.incarnation,
                self._sequence,
                joins,
                self._entries(joins),
                restore=True,
            )
        # What was under way has to be decided again, by what is there now.
        self._sequence += bool(self._batch)
        logger.warning("The membership store was empty; it was written again.")

    def _make_relay(self) -> Relay:
        node = self.node
        return Relay(
            node.layer,
            self.store,
            self.index,
            node.connections,
            self.groups,
            node.changes,
            node.settings.plain_group_send,
        )

    async def _evict_for(self, membership: Membership, answer: Answer) -> bool:
        """Return whether a full group has room once the expired are out."""
        if await self.store.count(membership.group.name) >= answer.count:
            return False
        try:
            await asyncio.wait_for(self.lease.evict_overdue(), 2 * TIMEOUT)
        except asyncio.TimeoutError:
            return False
        return True


def _arguments(answer: Answer) -> dict[str, Any]:
    return {
        "count": answer.count,
        "user_count": answer.user_count,
        "revision": answer.revision,
    }


def _rejoin(membership: Membership) -> Join:
    name = membership.group.name
    return Join(name, membership.member, None, membership.told)

"""A node's part in one shard of the store: its groups, and what becomes of requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from . import signals
from .announcer import Announcement, announcing, check_not_announcing
from .connection import TRY_AGAIN_LATER
from .deadline import in_time
from .exceptions import ConnectionClosed, GroupFull, StoreUnavailable
from .membership import (
    JOINED,
    JOINING,
    LEAVING,
    Lingering,
    LocalGroup,
    Membership,
)
from .meters import METERS
from .relay import TIMEOUT
from .stores.base import Answer, Confirm, Join, Leave, Loss, Member, Update
from .watch import NAMES, Reporter
from .writer import Request, Writer

#: A signal and its arguments.
Fired = tuple[Any, dict[str, Any]]
#: Outcomes that nobody is told of.
QUIET = (
    *("full", "unchanged", "lingering", "resumed"),
    *("taken", "elsewhere", "confirmed"),
)
#: Seconds for the news that a membership lingers no more, in which it may get lost.
FORGOTTEN = 5

if TYPE_CHECKING:
    from .groups import ConnectionGroup
    from .node import Node


class Shard:
    """The local truth of one shard: this node's groups and their local members."""

    def __init__(self, node: Node, index: int) -> None:
        self.node = node
        self.index = index
        self.groups: dict[str, LocalGroup] = {}
        #: (group, connection id) -> what this node has let linger, as far as it knows.
        self.lingering: dict[tuple[str, str], Lingering] = {}
        self.reporter = Reporter(node)
        self._writer = Writer(self)

    # Called by the node

    async def join(self, membership: Membership, limit: int | None) -> None:
        """Make a membership true.

        Raise GroupFull, ConnectionClosed, or StoreUnavailable. In each case, and
        if cancelled, no membership is left, be it that one has to be ended again.
        """
        check_not_announcing(membership.group.name)
        answer = await self._join(membership, limit)
        if answer.outcome == "full" and await self._make_room(membership, answer):
            membership.connection.check_open()
            answer = await self._join(membership, limit)
        if answer.outcome == "full":
            raise GroupFull(f"Group {membership.group.name!r} is full.")
        if membership.connection.ended:
            raise ConnectionClosed
        if answer.former and answer.former.info != membership.member.info:
            try:
                await self._update(membership)
            except BaseException:
                self.leave_soon(membership)
                raise

    async def leave(
        self, membership: Membership, reason: str, grace: float = 0
    ) -> None:
        """End a membership, or let it linger for ``grace`` seconds.

        Wait for the signals, but not for a store that is away. It is not lost
        meanwhile: the writer goes on until it is done. Who has waited for as long as
        that, or is cancelled, gets nothing more.
        """
        request = self._begin_leave(membership, reason, grace)
        if request:
            try:
                await self._carry_out(request)
            finally:
                membership.silence()

    def leave_soon(
        self, membership: Membership, reason: str = "left", grace: float = 0
    ) -> None:
        """End a membership, before whatever is committed from now on.

        It gets nothing more: nobody takes it for a member here.
        """
        leave = self._begin_leave(membership, reason, grace)
        membership.silence()
        if leave:
            self._writer.submit(leave)

    async def update(self, membership: Membership, info: dict[str, Any]) -> None:
        """Give a membership other info, and wait as for a leave.

        Of updates that wait for the store together, the latest is written.
        """
        if membership.state is not JOINED or membership.member.info == info:
            return
        membership.member = membership.member._replace(info=info)
        waiting = membership.update
        if waiting and not (waiting.sent or waiting.answered):
            waiting.operation = replace(waiting.operation, member=membership.member)
            await self._wait(waiting, self.node.loop.time() + TIMEOUT)
            return
        await self._update(membership)

    async def confirm(self, membership: Membership) -> None:
        """Ask the store if a membership still is this node's; it ends here if not."""
        if membership.state is JOINED:
            about = membership.group.name, membership.member, membership.told
            waiting = _waiting_for(membership)
            await self._carry_out(Request(Confirm(*about), membership, "", waiting))

    async def _update(self, membership: Membership) -> None:
        update = Update(membership.group.name, membership.member, membership.told)
        request = Request(update, membership, "", _waiting_for(membership))
        membership.update = request
        await self._carry_out(request)

    async def close(self) -> None:
        """Write what is left to write, then give up the lease."""
        await self._writer.close()
        await self.reporter.stop()

    def enter_again(self, host: int) -> None:
        """Enter the groups again that a host of the layer may have forgotten."""
        self._writer.enter_again(host)

    async def abandon(self) -> None:
        """Give up the lease: there is nobody left to write."""
        await self._writer.abandon()

    # Called by the writer and the lease

    def memberships(self) -> list[Membership]:
        return [one for group in self.groups.values() for one in group.members]

    def apply(self, request: Request, answer: Answer) -> None:
        """Make the store's answer the local truth, and tell everybody."""
        membership = request.membership
        if answer.former:
            self._resume(membership, answer.former, answer)
        if answer.outcome == "lingering":
            self._linger(membership, request.operation)
        if isinstance(request.operation, Leave) or answer.outcome == "full":
            self.forget(membership)
        elif answer.outcome in ("taken", "elsewhere"):
            self._give_up(membership, answer.outcome)
        elif isinstance(request.operation, (Update, Confirm)):
            pass  # The membership has it already.
        elif membership.state is JOINING:
            self._admit(membership, answer.revision)
        else:
            membership.committed = True
            membership.revision = answer.revision
            self._show(membership)
        request.answer(answer)
        if answer.outcome in QUIET:
            request.finish()
        elif isinstance(request.operation, Join):
            self._tell_of_join(request, answer)
        elif isinstance(request.operation, Update):
            self._tell_of_update(request, answer)
        else:
            self._tell_of_leave(request, answer)

    def forget(self, membership: Membership) -> None:
        """End a membership here; the store has ended it or never knew of it."""
        membership.end()
        self.node.states.leave(membership)
        name = membership.group.name
        resumed, key = self.node.resumed, (name, membership.member.id)
        if resumed.get(key) is membership.connection:
            del resumed[key]
        group = self.groups.get(membership.group.name)
        if group and membership in group.members:
            del group.members[membership]
            if membership.hooked and not group.hooked:
                self.node.changes.forget(group)
            if not group.members:
                self._writer.leave_layer(group)

    def announce_loss(self, loss: Loss, reason: str = "lost") -> None:
        """Fire the signals of a member that was evicted, and tell the others."""
        answer, local = loss.answer, self.groups.get(loss.group)
        self._tell_owner(loss.group, loss.member, answer.owner)
        group = (local and local.public) or self.node.manager.group(loss.group)
        connection = group.manager.connection(loss.member, group)
        leave = {"connection": connection, "reason": reason, **_counts(answer)}
        fired = [(signals.group_leave, leave)]
        fired += _fired_of_user(loss.member.user_id, answer)
        self._announce(group, fired, answer)
        if answer.told:
            self.node.changes.add("left", loss.group, loss.member, answer)

    # Lingering

    def settle(self) -> None:
        """Forget what lingers no more, by this node's own clock."""
        now = self.node.loop.time()
        for key, lingering in list(self.lingering.items()):
            if lingering.until + FORGOTTEN <= now:
                self.end_lingering(*key)

    def end_lingering(self, group: str, id: str) -> bool:
        """Note that a membership lingers no more; return whether it was this node's."""
        if self.lingering.pop((group, id), None) is None:
            return False
        self.node.close_if_idle()
        return True

    def _linger(self, membership: Membership, leave: Any) -> None:
        name, member = membership.group.name, membership.member
        until = self.node.loop.time() + leave.grace
        self.lingering[name, member.id] = Lingering(name, member, until)

    def _resume(self, membership: Membership, former: Member, answer: Answer) -> None:
        """Be the same member for the others, with the new connection's channel."""
        connection, name = membership.connection, membership.group.name
        membership.member = membership.member._replace(
            id=former.id, joined_at=former.joined_at
        )
        connection.ids.add(former.id)
        self.node.resumed[name, former.id] = connection
        self._tell_owner(name, former, answer.owner)

    def _tell_owner(self, group: str, member: Member, owner: str) -> None:
        """Let the node that had a membership, or let it linger, know of its end."""
        if not self.end_lingering(group, member.id) and owner:
            self.node.changes.tell_owner(owner, group, member)

    def give_up(self, group: str, id: str) -> None:
        """End what another node turns out to have, be it a member here or lingering."""
        self.end_lingering(group, id)
        for membership in self.memberships():
            if (membership.group.name, membership.member.id) == (group, id):
                self._give_up(membership, "elsewhere")

    def _give_up(self, membership: Membership, outcome: str) -> None:
        """End a connection; its client may come back where it may be the later one."""
        self.forget(membership)
        code = TRY_AGAIN_LATER if outcome == "elsewhere" else 1000
        membership.connection.give_way(code)

    # Joining

    def _admit(self, membership: Membership, revision: int) -> None:
        group = self.groups[membership.group.name]
        membership.admit(revision)
        self._show(membership)
        if membership.hooked and not group.known:
            self.node.changes.begin(group, revision)

    async def _join(self, membership: Membership, limit: int | None) -> Answer:
        name = membership.group.name
        group = self.groups.setdefault(name, LocalGroup(name))
        group.members[membership] = None
        resume = self.node.find_resumable(membership)
        join = Join(name, membership.member, limit, membership.told, resume)
        request = Request(join, membership, "", _waiting_for(membership))
        membership.begin(request)
        deadline = self.node.loop.time() + TIMEOUT
        try:
            await self._writer.commit(request)
            await self._wait_for_answer(request, deadline)
            request.result()
            await request.wait_announced()
        except BaseException:
            self.leave_soon(membership)
            raise
        return request.result()

    async def _wait_for_answer(self, request: Request, deadline: float) -> None:
        """Wait for an answer; also longer, as long as others get theirs before."""
        now = self.node.loop.time
        while not await request.wait(deadline - now()):
            deadline = max(deadline, self._writer.last_answer(request) + TIMEOUT)
            if deadline <= now():
                raise StoreUnavailable(
                    f"{self.node.store} did not answer in time."
                ) from self._writer.lease.error

    async def _make_room(self, membership: Membership, full: Answer) -> bool:
        """Evict expired processes if the group is full only with their members."""
        if await self.node.store.count(membership.group.name) >= full.count:
            return False
        try:
            await in_time(self._writer.lease.evict_overdue(), 2 * TIMEOUT)
        except asyncio.TimeoutError:
            return False
        return True

    # Leaving and updating

    def _begin_leave(
        self, membership: Membership, reason: str, grace: float = 0
    ) -> Request | None:
        if membership.state not in (JOINING, JOINED):
            return None
        joining = membership.request
        if joining and not joining.sent and not membership.committed:
            self._writer.drop(joining)
            self.forget(membership)
            return None
        membership.state = LEAVING
        if not membership.committed:  # And never may be.
            membership.silence()
        about = membership.group.name, membership.member, membership.told
        leave = Leave(*about, grace if membership.member.user_id is not None else 0)
        return Request(leave, membership, reason, _waiting_for(membership))

    async def _carry_out(self, request: Request) -> bool:
        """Commit and wait for the signals; return whether the store has answered."""
        deadline = self.node.loop.time() + TIMEOUT
        await self._writer.commit(request)
        return await self._wait(request, deadline)

    async def _wait(self, request: Request, deadline: float) -> bool:
        if not await request.wait(deadline - self.node.loop.time()):
            return False
        await request.wait_announced()
        return True

    # Telling

    def _tell_of_join(self, request: Request, answer: Answer) -> None:
        membership, member = request.membership, request.operation.member
        group = membership.group
        if self._is_listened_to(group):
            join = {"connection": membership.show(member), **_counts(answer)}
            fired = [(signals.group_join, join)]
            fired += _fired_of_user(member.user_id, answer)
            self._announce(group, fired, answer, request.finish, request.waiting)
        else:
            request.finish()
        if answer.told:
            self.node.changes.add("joined", group.name, member, answer)

    def _tell_of_update(self, request: Request, answer: Answer) -> None:
        membership, member = request.membership, request.operation.member
        group = membership.group
        update = {"connection": membership.show(member), **_counts(answer)}
        fired = [(signals.group_update, update)]
        self._announce(group, fired, answer, request.finish, request.waiting)
        if answer.told:
            self.node.changes.add("updated", group.name, member, answer)

    def _tell_of_leave(self, request: Request, answer: Answer) -> None:
        membership = request.membership
        group, connection = membership.group, membership.connection
        if self._is_listened_to(group):
            leave = {"connection": membership.public, "reason": request.reason}
            fired = [(signals.group_leave, {**leave, **_counts(answer)})]
            fired += _fired_of_user(membership.member.user_id, answer)
            self._announce(group, fired, answer, request.finish, request.waiting)
        else:
            request.finish()
        if answer.told:
            self.node.changes.add("left", group.name, membership.member, answer)
        if membership.hooked and not (connection.ended or self.node.is_told_to_stop):
            connection.tell(self.node.changes.own_leave(membership, answer))

    def _show(self, membership: Membership) -> None:
        if membership.shown:
            self.node.states.enter(membership)

    def _is_listened_to(self, group: ConnectionGroup) -> bool:
        """Return whether a signal would reach anybody."""
        return bool(
            METERS
            or self.reporter.is_watched
            or self.node.announcer.is_listened_to(group.name)
        )

    def _announce(
        self,
        group: ConnectionGroup,
        fired: list[Fired],
        answer: Answer,
        finish: Callable[[], None] = lambda: None,
        waiting: frozenset[object] = frozenset(),
    ) -> None:
        """Fire the signals of one answer, created first, destroyed last."""
        about = {"revision": answer.revision}
        if answer.outcome == "created":
            fired = [(signals.group_created, about), *fired]
        elif answer.outcome == "destroyed":
            fired = [*fired, (signals.group_destroyed, about)]
        self.reporter.add(group, fired)
        for meter in METERS:
            for signal, told in (one for one in fired if one[0] in NAMES):
                meter.fired(self.node.alias, NAMES[signal], told.get("reason"))
        sender = type(group.manager)
        announcement = Announcement(sender, group, fired, finish, waiting)
        self.node.announcer.announce(announcement)


def _waiting_for(membership: Membership) -> frozenset[object]:
    """Return the groups and connections that wait for its next signals."""
    return announcing() | {membership.connection}


def _fired_of_user(user_id: str | None, answer: Answer) -> list[Fired]:
    """Return the signals of a user's first connection in a group, or its last."""
    about = {"user_id": user_id, **_counts(answer)}
    if user_id is not None and answer.connections == 0:
        return [(signals.group_user_leave, about)]
    if answer.outcome in ("created", "joined") and answer.connections == 1:
        return [(signals.group_user_join, about)]
    return []


def _counts(answer: Answer) -> dict[str, Any]:
    return {
        "count": answer.count,
        "user_count": answer.user_count,
        "revision": answer.revision,
    }

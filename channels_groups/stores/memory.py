"""The store beside InMemoryChannelLayer: one process, no server."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterator, Mapping, Sequence

from channels_groups.conf import get_settings

from .base import (
    LINGERING,
    PAGE,
    Answer,
    BaseStore,
    Confirm,
    Disagreement,
    Entry,
    Eviction,
    Findings,
    Holdings,
    Incarnation,
    Join,
    LeaseLost,
    Leave,
    Loss,
    Member,
    NodeState,
    Operation,
    Renewal,
    Summary,
    Update,
)


@dataclass
class _Node:
    incarnation: Incarnation
    deadline: float
    sequence: int = 0
    answers: list[Answer] = field(default_factory=list)
    groups: dict[str, list[Entry]] = field(default_factory=dict)
    #: (group, connection id) of what was taken from it and it has yet to hear of.
    taken: set[tuple[str, str]] = field(default_factory=set)
    #: The last eviction's sequence and answer.
    evicted: tuple[int, Eviction] | None = None
    connections: int = 0


@dataclass
class _Group:
    #: node id -> connection id -> (member, told)
    nodes: dict[str, dict[str, tuple[Member, bool]]] = field(default_factory=dict)
    count: int = 0
    told: int = 0
    users: Counter[str] = field(default_factory=Counter)
    #: Of the last change, while somebody is told.
    revision: int = 0

    def tell(self, more: int) -> None:
        self.told += more
        if not self.told:
            self.revision = 0

    def add(self, member: Member, told: bool, sign: int) -> None:
        self.count += sign
        self.told += sign * told
        if member.user_id is not None:
            self.users[member.user_id] += sign
            if not self.users[member.user_id]:
                del self.users[member.user_id]


class MemoryStore(BaseStore):
    """Hold memberships in this process, for all of its event loops.

    A lock guards it, since event loops run in threads of their own.
    """

    def __init__(
        self, alias: str, layer: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._epoch = ""
        self._revision = 0
        self._nodes: dict[str, _Node] = {}
        self._groups: dict[str, _Group] = {}
        #: user id -> (group, connection id) -> node id
        self._users: dict[str, dict[tuple[str, str], str]] = {}
        #: (group, connection id) -> the end of its grace, and who had it.
        self._due: dict[tuple[str, str], tuple[float, str]] = {}
        self.lingers = get_settings(alias).grace > 0
        #: channel -> until when it wants to hear of every event
        self._watchers: dict[str, float] = {}

    def shard(self, group: str) -> int:
        return 0

    async def register(
        self, shard: int, node: Incarnation, epoch: str, lease: float
    ) -> str:
        with self._lock:
            self._epoch = self._epoch or uuid.uuid4().hex
            self._nodes[node.id] = _Node(node, self._clock() + lease)
            return self._epoch

    async def renew(
        self,
        shard: int,
        node: Incarnation,
        epoch: str,
        lease: float,
        renewal: float,
        holdings: Holdings = Holdings(),
    ) -> Renewal:
        with self._lock:
            known = self._nodes.get(node.id)
            if known and known.deadline > 0:
                known.deadline = self._clock() + lease
                known.connections = holdings.connections
                state = "alive"
            else:
                state = "lost"
            overdue = sorted(self._expired() - {node.id, LINGERING})
            overdue += [LINGERING] if self._is_due() else []
            now = self._clock()
            watchers = [one for one, until in self._watchers.items() if until > now]
            taken = sorted(known.taken) if known else []
            return Renewal(state, self._epoch, overdue, False, watchers, taken)

    async def commit(
        self,
        shard: int,
        node: Incarnation,
        sequence: int,
        operations: Sequence[Operation],
        entries: Mapping[str, Sequence[Entry]],
        restore: bool = False,
    ) -> list[Answer]:
        with self._lock:
            known = self._nodes.get(node.id)
            if known is None:
                raise LeaseLost
            if sequence != known.sequence:
                if known.deadline <= 0 or sequence < known.sequence:
                    raise LeaseLost
                known.answers = [self._apply(known, one) for one in operations]
                known.sequence = sequence
                for group in known.groups:
                    known.groups[group] = list(entries.get(group, known.groups[group]))
            return known.answers

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
        with self._lock:
            mine = self._nodes.get(node.id)
            if mine and mine.evicted and mine.evicted[0] == sequence:
                return mine.evicted[1]
            evict = self._end_graces if dead == LINGERING else self._evict
            eviction = evict(dead, limit)
            if mine:
                mine.evicted = sequence, eviction
            return eviction

    async def release(self, shard: int, node: Incarnation) -> None:
        with self._lock:
            self._nodes.pop(node.id, None)

    async def count(self, group: str) -> int:
        with self._lock:
            nodes, gone = self._groups.get(group, _Group()).nodes, self._expired()
            return sum(len(nodes[node]) for node in nodes if node not in gone)

    async def user_count(self, group: str) -> int:
        return len(await self.users(group))

    async def users(self, group: str) -> set[str]:
        users = {member.user_id for member in self._members(group)}
        return {user for user in users if user is not None}

    async def member(self, group: str, id: str) -> Member | None:
        return next((one for one in self._members(group) if one.id == id), None)

    async def summaries(self, shard: int, groups: Sequence[str]) -> list[Summary]:
        with self._lock:
            return [self._summary(name) for name in groups]

    async def user_members(
        self, user_id: str, cursor: Any
    ) -> tuple[list[tuple[str, Member]], Any]:
        with self._lock:
            gone = self._expired()
            places = self._users.get(user_id, {}).items()
            return [
                (name, self._groups[name].nodes[node][id][0])
                for (name, id), node in places
                if node not in gone
            ], None

    async def members(self, group: str, cursor: Any) -> tuple[list[Member], Any]:
        rest = self._members(group) if cursor is None else cursor
        return rest[:PAGE], rest[PAGE:] or None

    async def group_nodes(self, group: str) -> list[str]:
        with self._lock:
            gone = self._expired()
            nodes = self._groups.get(group, _Group()).nodes
            return [node for node in nodes if node not in gone]

    async def node_members(
        self, group: str, node: str, cursor: str, size: int = PAGE
    ) -> tuple[list[Member], str]:
        with self._lock:
            entries = self._groups.get(group, _Group()).nodes.get(node, {})
            ids = sorted(id for id in entries if id > cursor)
            page = [entries[id][0] for id in ids[:size]]
            return page, page[-1].id if len(ids) > size else ""

    async def groups(
        self, prefix: str, cursor: Any
    ) -> tuple[list[tuple[str, int]], Any]:
        if prefix:
            names = [one for one in self._counts().items() if one[0].startswith(prefix)]
            names = sorted(one for one in names if one[0] > (cursor or ""))
            return names[:PAGE], names[PAGE - 1][0] if len(names) > PAGE else None
        if cursor is None:
            cursor = sorted(self._counts().items(), key=lambda one: -one[1])
        return cursor[:PAGE], cursor[PAGE:] or None

    async def ranking(
        self, shard: int, first: int, size: int, ascending: bool = False
    ) -> list[tuple[str, int]]:
        sign = 1 if ascending else -1
        counts = sorted(self._counts().items(), key=lambda one: (sign * one[1], one[0]))
        return counts[first : first + size]

    async def group_count(self) -> int:
        return len(self._counts())

    async def membership_count(self) -> int:
        return sum(self._counts().values())

    async def channels(self) -> list[str]:
        with self._lock:
            gone = self._expired() | {LINGERING}
            nodes = [node for id, node in self._nodes.items() if id not in gone]
            return [node.incarnation.channel for node in nodes]

    async def nodes(self) -> list[NodeState]:
        with self._lock:
            now = self._clock()
            return [
                NodeState(
                    0,
                    id,
                    node.incarnation.process,
                    node.connections,
                    sum(len(self._groups[name].nodes[id]) for name in node.groups),
                    node.deadline - now,
                )
                for id, node in self._nodes.items()
                if id != LINGERING
            ]

    # For whoever operates it

    async def watch(self, channel: str, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            watchers = {**self._watchers, channel: now + seconds}
            watching = {one: until for one, until in watchers.items() if until > now}
            self._watchers = watching

    async def verify(self, cursor: Any, mend: bool = False) -> tuple[Findings, Any]:
        with self._lock:
            found = [
                Disagreement(what, 0, name)
                for name, group in list(self._groups.items())
                for what in self._verify(name, group, mend)
            ]
            return Findings(len(self._groups), found), None

    # With the lock held

    def _verify(self, name: str, group: _Group, mend: bool) -> Iterator[str]:
        right = _Group(group.nodes, revision=group.revision)
        for entries in group.nodes.values():
            for member, told in entries.values():
                right.add(member, told, 1)
        if group != right:
            yield f"It counts {group.count} members and has {right.count}."
            if mend:
                self._groups[name] = right
        for id, node in [(id, self._nodes.get(id)) for id in group.nodes]:
            if node and name not in node.groups:
                yield "A process has members in it and does not list it as its own."
                if mend:
                    node.groups[name] = []

    def _expired(self) -> set[str]:
        now = self._clock()
        return {id for id, node in self._nodes.items() if node.deadline <= now}

    def __str__(self) -> str:
        return "The membership store in memory"

    def _members(self, name: str) -> list[Member]:
        with self._lock:
            return self._living(name)

    def _living(self, name: str) -> list[Member]:
        group = self._groups.get(name, _Group())
        gone = self._expired()
        return [
            member
            for node, entries in group.nodes.items()
            if node not in gone
            for member, _ in entries.values()
        ]

    def _summary(self, name: str) -> Summary:
        members = self._living(name)
        users = {member.user_id for member in members} - {None}
        revision = self._groups.get(name, _Group()).revision
        return Summary(revision, len(members), len(users))

    def _counts(self) -> dict[str, int]:
        with self._lock:
            gone = self._expired()
            counts = {
                name: sum(len(es) for id, es in group.nodes.items() if id not in gone)
                for name, group in self._groups.items()
            }
        return {name: count for name, count in counts.items() if count}

    def _apply(self, node: _Node, operation: Operation) -> Answer:
        if isinstance(operation, Join):
            return self._join(node, operation)
        if isinstance(operation, Update):
            return self._update(node, operation)
        if isinstance(operation, Confirm):
            return self._confirm(node, operation)
        if operation.grace:
            return self._linger(node, operation)
        return self._leave(node, operation)

    def _join(self, node: _Node, join: Join) -> Answer:
        group = self._groups.get(join.group) or _Group()
        owner, former = self._find_former(node, join)
        if former is not None and former.id == join.member.id and owner != LINGERING:
            return self._answer("elsewhere", group)
        if former is not None:
            return self._resume(node, join, owner, former)
        if join.member.id in group.nodes.get(node.incarnation.id, {}):
            return self._answer("unchanged", group)
        if join.limit is not None and group.count >= join.limit:
            return self._answer("full", group)
        self._groups[join.group] = group
        self._put_in(node, join.group, join.member, join.told)
        group.add(join.member, join.told, 1)
        outcome = "created" if group.count == 1 else "joined"
        return self._answer(outcome, group, join.member)

    def _update(self, node: _Node, update: Update) -> Answer:
        group = self._groups.get(update.group) or _Group()
        entries = group.nodes.get(node.incarnation.id, {})
        if update.member.id not in entries:
            return self._missing(node, update, group)
        entries[update.member.id] = update.member, update.told
        return self._answer("updated", group, update.member)

    def _confirm(self, node: _Node, confirm: Confirm) -> Answer:
        group = self._groups.get(confirm.group) or _Group()
        if confirm.member.id not in group.nodes.get(node.incarnation.id, {}):
            return self._missing(node, confirm, group)
        return self._answer("confirmed", group)

    def _leave(self, node: _Node, leave: Leave) -> Answer:
        group = self._groups.get(leave.group) or _Group()
        if self._take_out(node, leave.group, leave.member.id) is None:
            return self._missing(node, leave, group)
        group.add(leave.member, leave.told, -1)
        if not group.count:
            del self._groups[leave.group]
        outcome = "left" if group.count else "destroyed"
        return self._answer(outcome, group, leave.member)

    def _linger(self, node: _Node, leave: Leave) -> Answer:
        group = self._groups.get(leave.group) or _Group()
        member = self._take_out(node, leave.group, leave.member.id)
        if member is None:
            return self._missing(node, leave, group)
        group.tell(-leave.told)
        deadline = self._clock() + leave.grace
        nobody = self._nodes.setdefault(LINGERING, _Node(Incarnation(LINGERING, ""), 0))
        nobody.deadline = max(nobody.deadline, deadline)
        self._put_in(nobody, leave.group, member, False)
        self._due[leave.group, member.id] = deadline, node.incarnation.id
        return self._answer("lingering", group)

    def _missing(self, node: _Node, operation: Operation, group: _Group) -> Answer:
        """Answer for a member that the node has not: it may have been taken from it."""
        place = operation.group, operation.member.id
        outcome = "taken" if place in node.taken else "unchanged"
        node.taken.discard(place)
        return self._answer(outcome, group)

    def _find_former(self, node: _Node, join: Join) -> tuple[str, Member | None]:
        """Return with what a join goes on or which it is itself, and where that is."""
        user = join.member.user_id
        group = self._groups.get(join.group)
        if join.resume is None or group is None or user is None:
            return "", None
        own = join.resume == (join.member.id,)
        # What the node has yet to hear was taken from it, it holds as another's.
        unheard = {id for name, id in node.taken if name == join.group}
        for id in join.resume:
            owner = self._users.get(user, {}).get((join.group, id))
            if owner is not None and owner != node.incarnation.id:
                if own or id not in unheard:
                    return owner, group.nodes[owner][id][0]
        lingering = [one for one, _ in group.nodes.get(LINGERING, {}).values()]
        found = [
            one for one in lingering if one.user_id == user and one.id not in unheard
        ]
        return LINGERING, found[0] if found and not own else None

    def _take_over(self, owner: _Node, name: str, id: str) -> str:
        """Take a member out of another node; return that node's channel."""
        _, told = self._groups[name].nodes[owner.incarnation.id][id]
        self._take_out(owner, name, id)
        self._groups[name].tell(-told)
        owner.taken.add((name, id))
        return owner.incarnation.channel

    def _resume(self, node: _Node, join: Join, at: str, former: Member) -> Answer:
        group = self._groups[join.group]
        if at == LINGERING:
            owner = self._end_lingering(join.group, former.id)
        else:
            owner = self._take_over(self._nodes[at], join.group, former.id)
        group.tell(join.told)
        member = join.member._replace(id=former.id, joined_at=former.joined_at)
        self._put_in(node, join.group, member, join.told)
        answer = self._answer("resumed", group)
        if group.told and not group.revision:
            group.revision = self._next_revision()
        revision = group.revision or self._next_revision()
        return replace(answer, revision=revision, former=former, owner=owner)

    def _end_lingering(self, name: str, id: str) -> str:
        """Take out one that lingers; return the channel of who had it."""
        nobody = self._nodes[LINGERING]
        self._take_out(nobody, name, id)
        if not nobody.groups:
            del self._nodes[LINGERING]
        owner = self._nodes.get(self._due.pop((name, id))[1])
        return owner.incarnation.channel if owner else ""

    def _is_due(self) -> bool:
        now = self._clock()
        return any(deadline <= now for deadline, _ in self._due.values())

    def _end_graces(self, dead: str, limit: int) -> Eviction:
        now = self._clock()
        due = [place for place, (deadline, _) in self._due.items() if deadline <= now]
        losses = []
        for name, id in due[:limit]:
            group = self._groups[name]
            member, _ = group.nodes[LINGERING][id]
            owner = self._end_lingering(name, id)
            group.add(member, False, -1)
            if not group.count:
                del self._groups[name]
            outcome = "left" if group.count else "destroyed"
            answer = self._answer(outcome, group, member)
            losses.append(Loss(name, member, replace(answer, owner=owner)))
        return Eviction(losses, [], len(due) <= limit)

    def _put_in(self, node: _Node, name: str, member: Member, told: bool) -> None:
        id = node.incarnation.id
        self._groups[name].nodes.setdefault(id, {})[member.id] = member, told
        node.groups.setdefault(name, [])
        if member.user_id is not None:
            self._users.setdefault(member.user_id, {})[name, member.id] = id

    def _take_out(self, node: _Node, name: str, id: str) -> Member | None:
        group = self._groups.get(name) or _Group()
        entries = group.nodes.get(node.incarnation.id, {})
        if id not in entries:
            return None
        member, _ = entries.pop(id)
        if not entries:
            del group.nodes[node.incarnation.id]
            del node.groups[name]
        if member.user_id is not None:
            places = self._users[member.user_id]
            del places[name, id]
            if not places:
                del self._users[member.user_id]
        return member

    def _evict(self, dead: str, limit: int) -> Eviction:
        gone = self._nodes.get(dead)
        if gone is None or gone.deadline > self._clock():
            return Eviction([], [], True)
        gone.deadline = 0
        losses: list[Loss] = []
        entries: list[Entry] = []
        for name in list(gone.groups):
            layer_entries = gone.groups[name]
            members = list(self._groups[name].nodes[dead].values())
            for member, told in members[: limit - len(losses)]:
                answer = self._leave(gone, Leave(name, member, told))
                losses.append(Loss(name, member, answer))
            if name not in gone.groups:
                entries += layer_entries
            if len(losses) >= limit:
                break
        if not gone.groups:
            del self._nodes[dead]
        return Eviction(losses, entries, not gone.groups)

    def _answer(
        self, outcome: str, group: _Group, member: Member | None = None
    ) -> Answer:
        """Return the answer; ``member`` is the one that it is about if it changed."""
        told, connections, previous = group.told > 0, 0, group.revision
        if member is not None:
            revision = self._next_revision()
            group.revision = revision if told else 0
            if member.user_id is not None:
                connections = group.users[member.user_id]
        counts = group.count, len(group.users)
        return Answer(outcome, *counts, self._revision, told, connections, previous)

    def _next_revision(self) -> int:
        """Go with the clock, so that it grows for a group over everything."""
        self._revision = max(self._revision + 1, time.time_ns() // 1000)
        return self._revision

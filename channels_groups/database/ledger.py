"""What one transaction reads, changes and writes of a layer's book."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Iterable, Mapping, Sequence, TypeVar

from django.db import connections, models

from channels_groups.stores.base import (
    Answer,
    Confirm,
    Entry,
    Join,
    Operation,
    Update,
)

from .models import STEM, Book, Group, Membership, Node, Part
from .texts import Records, digest, escape

M = TypeVar("M", Group, Part, Membership)
C = TypeVar("C", Group, Part)
R = TypeVar("R", bound=models.Model)

#: Rows in one statement.
ROWS = 500


@dataclass
class Side:
    """What a node has in the groups: the node's row, and rows by the group's key."""

    node: Node
    parts: dict[str, Part] = field(default_factory=dict)
    #: By the connection too.
    members: dict[tuple[str, str], Membership] = field(default_factory=dict)


class Ledger:
    """The groups that one node's members join and leave, worked out in memory.

    The book is locked: nobody else changes any of this before it is written.
    ``nobody`` is the row of those who linger, where that may matter.
    """

    def __init__(
        self,
        using: str,
        book: Book,
        now: int,
        node: Node,
        records: Records,
        nobody: Node | None = None,
    ) -> None:
        self._using = using
        self._book = book
        self._now = now
        self._records = records
        self._mine = Side(node)
        self._lingering = Side(nobody) if nobody else None
        self._sides = [side for side in (self._mine, self._lingering) if side]
        #: What other nodes have that a join may go on with, by the node's id.
        self._others: dict[str, Side] = {}
        self._taken = {(key, id) for key, id in json.loads(node.taken)}
        #: By the group's key; those without members are to be deleted.
        self._groups: dict[str, Group] = {}
        #: The key of each part's group.
        self._keys: dict[int, str] = {}
        #: How many connections, by the group's key and the user's.
        self._users: Counter[tuple[str, str]] = Counter()
        #: The channels of the nodes that let members linger.
        self._channels = {node.id: node.channel}
        self._ended: set[int] = set()
        self._updated: dict[int, Membership] = {}
        #: The keys of the groups in which something changed.
        self._changed: set[str] = set()

    # Reading

    def read(self, operations: Sequence[Operation]) -> None:
        """Read what the operations may change."""
        keys = {digest(one.group) for one in operations}
        groups = self._rows(Group)
        self._read_groups(groups.filter(layer=self._book.layer, key__in=keys))
        users = {self._records.user(one.member.user_id) for one in operations} - {""}
        user_keys = {digest(user) for user in users}
        ids = {one.member.id for one in operations}
        mine, lingering = self._mine, self._lingering
        if mine.parts:
            found = self._members_of(mine).filter(connection__in=ids)
            self._note_members(mine, found)
        if lingering and lingering.parts:
            found = self._members_of(lingering).filter(user_key__in=user_keys)
            self._note_members(lingering, found.order_by("until", "id"))
        joins = [one for one in operations if isinstance(one, Join)]
        resumed = {id for one in joins for id in one.resume or ()}
        if self._groups and resumed:
            self._read_others(list(resumed), user_keys)
        self._read_users(user_keys)

    def read_some(self, limit: int) -> list[Membership]:
        """Read so many of the node's memberships, and return them."""
        members = self._rows(Membership).filter(part__node=self._mine.node)
        return self._read_found(members.order_by("part", "connection")[:limit])

    def read_due(self, limit: int) -> list[Membership]:
        """Do as read_some() with those of the node whose grace has ended."""
        members = self._rows(Membership).filter(part__node=self._mine.node)
        due = members.filter(until__lte=self._now)
        return self._read_found(due.order_by("until", "id")[:limit])

    def _read_found(self, members: Iterable[Membership]) -> list[Membership]:
        found = list(members)
        parts = {one.part_id for one in found}
        groups = self._rows(Group)
        self._read_groups(groups.filter(part__in=parts) if parts else ())
        self._note_members(self._mine, found)
        self._read_users(())
        return found

    def _read_groups(self, groups: Iterable[Group]) -> None:
        """Take groups, with what each side has in them."""
        self._groups = {group.key: group for group in groups}
        keys = {group.id: key for key, group in self._groups.items()}
        sides = {side.node.id: side for side in self._sides}
        if keys:
            for part in self._rows(Part).filter(node__in=sides, group__in=keys):
                key = self._keys[part.id] = keys[part.group_id]
                sides[part.node_id].parts[key] = part

    def _members_of(self, side: Side) -> models.QuerySet[Membership]:
        parts = [part.id for part in side.parts.values()]
        return self._rows(Membership).filter(part__in=parts)

    def _note_members(self, side: Side, members: Iterable[Membership]) -> None:
        for member in members:
            side.members[self._keys[member.part_id], member.connection] = member
        owners = {one.owner for one in side.members.values() if one.owner}
        if owners - self._channels.keys():
            nodes = self._rows(Node).filter(id__in=owners, evicted_until=0)
            self._channels.update(nodes.values_list("id", "channel"))

    def _read_others(self, ids: Sequence[str], user_keys: set[str]) -> None:
        keys = {group.id: key for key, group in self._groups.items()}
        nodes = [side.node.id for side in self._sides]
        found = self._rows(Membership).filter(
            part__group__in=keys, connection__in=ids, user_key__in=user_keys
        )
        found = found.exclude(part__node__in=nodes).select_related("part__node")
        for member in found:
            node, key = member.part.node, keys[member.part.group_id]
            side = self._others.setdefault(node.id, Side(node))
            side.parts.setdefault(key, member.part)
            side.members[key, member.connection] = member

    def _read_users(self, joining: Iterable[str]) -> None:
        """Count the connections of those who join and of those who may leave."""
        keys = {group.id: key for key, group in self._groups.items()}
        there = [one for side in self._sides for one in side.members.values()]
        users = {*joining, *(one.user_key for one in there)} - {""}
        if keys and users:
            members = self._rows(Membership).filter(
                part__group__in=keys, user_key__in=users
            )
            counts = members.values_list("part__group", "user_key")
            for group, user, count in counts.annotate(models.Count("id")):
                self._users[keys[group], user] = count

    # Changing

    def apply(
        self, operation: Operation, entries: Mapping[str, Sequence[Entry]]
    ) -> Answer:
        """Carry out an operation; ``entries`` as BaseStore.commit() takes them."""
        key = digest(operation.group)
        if isinstance(operation, Join):
            return self._join(key, operation, entries.get(operation.group, ()))
        member = self._mine.members.get((key, operation.member.id))
        if member is None:
            place = key, operation.member.id
            outcome = "taken" if place in self._taken else "unchanged"
            self._taken.discard(place)
            return _unchanged(outcome, self._groups.get(key))
        if isinstance(operation, Update):
            return self._update(key, member, self._records.record(operation.member))
        if isinstance(operation, Confirm):
            return _unchanged("confirmed", self._groups[key])
        if operation.grace:
            return self._linger(key, member, operation.grace)
        return self._end(key, member)

    def lose(self, member: Membership) -> tuple[Group, Part, Answer]:
        """End a membership that was read."""
        key = self._keys[member.part_id]
        answer = self._end(key, member)
        if member.owner:
            answer.owner = self._channels.get(member.owner, "")
        return self._groups[key], self._mine.parts[key], answer

    def ignore_told(self) -> None:
        """Let it not count that the node's members want to be told of changes."""
        for key, part in self._mine.parts.items():
            self._groups[key].told -= part.told
            part.told = 0
            self._changed.add(key)
        for member in self._mine.members.values():
            member.told = False

    def _join(self, key: str, join: Join, entries: Sequence[Entry]) -> Answer:
        group = self._groups.get(key)
        user = self._records.user(join.member.user_id)
        if join.resume is not None and user:
            side, former = self._find_former(key, user, join)
            if former and former.connection == join.member.id and not former.until:
                return _unchanged("elsewhere", group)
            if former:
                return self._resume(side, key, former, join, entries)
        if (key, join.member.id) in self._mine.members:
            return _unchanged("unchanged", group)
        if join.limit is not None and (group.count if group else 0) >= join.limit:
            return _unchanged("full", group)
        if group is None:
            name = escape(join.group)
            group = Group(layer=self._book.layer, key=key, name=name, stem=name[:STEM])
            self._groups[key] = group
        member = Membership(
            connection=join.member.id,
            user_key=digest(user) if user else "",
            user=user,
            record=self._records.record(join.member),
            told=join.told,
        )
        self._put(self._mine, key, member, entries)
        return self._count(key, member, 1)

    def _update(self, key: str, member: Membership, record: str) -> Answer:
        member.record = record
        self._note_update(member)
        return self._answer("updated", key, member)

    def _end(self, key: str, member: Membership) -> Answer:
        self._take(self._mine, key, member)
        if not member._state.adding:
            self._ended.add(member.id)
        return self._count(key, member, -1)

    def _count(self, key: str, member: Membership, sign: int) -> Answer:
        group = self._groups[key]
        group.count += sign
        group.told += sign * member.told
        if member.user_key:
            user = key, member.user_key
            before, self._users[user] = self._users[user], self._users[user] + sign
            group.user_count += bool(self._users[user]) - bool(before)
        outcome = "joined" if sign > 0 else "left"
        if sign > 0 and group.count == 1:
            outcome = "created"
        elif not group.count:
            outcome = "destroyed"
        self._book.groups += (outcome == "created") - (outcome == "destroyed")
        return self._answer(outcome, key, member)

    # Lingering: the membership goes from one side to the other, and still counts.

    def _linger(self, key: str, member: Membership, grace: float) -> Answer:
        assert self._lingering
        group, nobody = self._groups[key], self._lingering.node
        self._take(self._mine, key, member)
        group.told -= member.told
        group.revision *= group.told > 0
        member.told, member.owner = False, self._mine.node.id
        member.until = self._now + round(grace * 1_000_000)
        nobody.deadline = max(nobody.deadline, member.until)
        self._put(self._lingering, key, member, ())
        return _unchanged("lingering", group)

    def _find_former(
        self, key: str, user: str, join: Join
    ) -> tuple[Side, Membership | None]:
        """Return with what a join goes on or which it is itself, and where that is."""
        assert self._lingering
        own = join.resume == (join.member.id,)
        for place in [(key, id) for id in join.resume or ()]:
            for side in (self._lingering, *self._others.values()):
                found = side.members.get(place)
                if found and found.user == user and (own or place not in self._taken):
                    return side, found
        # What the node has yet to hear was taken from it, it holds as another's.
        any_ = [
            one
            for place, one in self._lingering.members.items()
            if (place[0], one.user) == (key, user) and place not in self._taken
        ]
        return self._lingering, any_[0] if any_ and not own else None

    def _resume(
        self,
        side: Side,
        key: str,
        member: Membership,
        join: Join,
        entries: Sequence[Entry],
    ) -> Answer:
        group = self._groups[key]
        former = self._records.member(member.connection, member.user, member.record)
        owner = self._channels.get(member.owner, "")
        self._take(side, key, member)
        group.told -= member.told
        if side is not self._lingering:
            owner = side.node.channel
            taken = [*json.loads(side.node.taken), [key, member.connection]]
            side.node.taken = json.dumps(taken)
        now = join.member._replace(joined_at=former.joined_at)
        member.record = self._records.record(now)
        member.told, member.owner, member.until = join.told, "", 0
        self._put(self._mine, key, member, entries)
        group.told += join.told
        revision = group.revision or self._next_revision()
        group.revision = revision if group.told else 0
        counts, told = (group.count, group.user_count), group.told > 0
        return Answer("resumed", *counts, revision, told, 0, 0, former, owner)

    # Below

    def _put(
        self, side: Side, key: str, member: Membership, entries: Sequence[Entry]
    ) -> None:
        part = side.parts.get(key)
        if part is None:
            part = side.parts[key] = Part(node=side.node, group=self._groups[key])
        if not part.count:
            part.entries = json.dumps(entries)
        side.members[key, member.connection] = member
        member.part = part
        self._adjust(side, key, member, 1)

    def _take(self, side: Side, key: str, member: Membership) -> None:
        del side.members[key, member.connection]
        self._adjust(side, key, member, -1)

    def _adjust(self, side: Side, key: str, member: Membership, sign: int) -> None:
        side.parts[key].count += sign
        side.parts[key].told += sign * member.told
        side.node.memberships += sign
        self._changed.add(key)
        self._note_update(member)

    def _note_update(self, member: Membership) -> None:
        if not member._state.adding:
            self._updated[member.id] = member

    def _next_revision(self) -> int:
        """Go with the clock, so that it grows for a group over everything."""
        self._book.revision = max(self._book.revision + 1, self._now)
        return self._book.revision

    def _answer(self, outcome: str, key: str, member: Membership) -> Answer:
        self._changed.add(key)
        group = self._groups[key]
        previous, told = group.revision, group.told > 0
        revision = self._next_revision()
        group.revision = revision if told else 0
        connections = self._users[key, member.user_key] if member.user_key else 0
        counts = group.count, group.user_count
        return Answer(outcome, *counts, revision, told, connections, previous)

    # Writing

    def write(self) -> None:
        """Write what has changed, but for the node and the book."""
        self._delete(Membership, self._ended)
        self._write(Group, self._groups, ["count", "user_count", "told", "revision"])
        joined = []
        for side in (*self._sides, *self._others.values()):
            self._write(Part, side.parts, ["count", "told", "entries"])
            joined += [one for one in side.members.values() if one._state.adding]
        updated = [one for id, one in self._updated.items() if id not in self._ended]
        fields = ["record", "part_id", "told", "owner", "until"]
        self._update_rows(Membership, updated, fields)
        self._insert(Membership, joined)
        if self._lingering:
            self._write_nobody(self._lingering.node)
        for node in [side.node for side in self._others.values()]:
            rows = self._rows(Node).filter(id=node.id)
            rows.update(memberships=node.memberships, taken=node.taken)
        self._mine.node.taken = json.dumps(sorted(self._taken))

    def _write_nobody(self, nobody: Node) -> None:
        rows = self._rows(Node).filter(id=nobody.id)
        if not nobody.memberships:
            rows.delete()
        elif nobody._state.adding:
            nobody.save(using=self._using, force_insert=True)
        else:
            rows.update(deadline=nobody.deadline, memberships=nobody.memberships)

    def _write(self, model: type[C], rows: Mapping[str, C], fields: list[str]) -> None:
        """Write groups or parts; those without members end."""
        changed = [row for key, row in rows.items() if key in self._changed]
        new = [row for row in changed if row._state.adding]
        old = [row for row in changed if not row._state.adding]
        self._delete(model, [row.id for row in old if not row.count])
        self._update_rows(model, [row for row in old if row.count], fields)
        self._insert(model, [row for row in new if row.count])

    def _insert(self, model: type[M], rows: list[M]) -> None:
        if rows:
            self._rows(model).bulk_create(rows, ROWS)

    def _update_rows(self, model: type[M], rows: list[M], fields: list[str]) -> None:
        objects = self._rows(model)
        if len(rows) == 1:
            values = {field: getattr(rows[0], field) for field in fields}
            objects.filter(id=rows[0].id).update(**values)
        elif rows:
            # Much less work for Django and the database than bulk_update().
            features = connections[self._using].features
            unique = ["id"] if features.supports_update_conflicts_with_target else None
            objects.bulk_create(
                rows,
                ROWS,
                update_conflicts=True,
                update_fields=fields,
                unique_fields=unique,
            )

    def _delete(self, model: type[M], found: Iterable[int]) -> None:
        ids = list(found)
        for start in range(0, len(ids), ROWS):
            some = ids[start : start + ROWS]
            self._rows(model).filter(id__in=some).delete()

    def _rows(self, model: type[R]) -> models.QuerySet[R]:
        return model._default_manager.using(self._using)


def _unchanged(outcome: str, group: Group | None) -> Answer:
    if group is None:
        return Answer(outcome, 0, 0, 0, False)
    return Answer(outcome, group.count, group.user_count, 0, False)

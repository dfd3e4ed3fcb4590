"""What one transaction reads, changes and writes of a layer's book."""

from __future__ import annotations

import json
from collections import Counter
from typing import Iterable, Mapping, Sequence, TypeVar

from django.db import connections, models

from channels_groups.stores.base import Answer, Entry, Join, Operation, Update

from .models import STEM, Book, Group, Membership, Node, Part
from .texts import Records, digest, escape

M = TypeVar("M", Group, Part, Membership)
C = TypeVar("C", Group, Part)

#: Rows in one statement.
ROWS = 500


class Ledger:
    """The groups that one node's members join and leave, worked out in memory.

    The book is locked: nobody else changes any of this before it is written.
    """

    def __init__(
        self, using: str, book: Book, now: int, node: Node, records: Records
    ) -> None:
        self._using = using
        self._book = book
        self._now = now
        self._node = node
        self._records = records
        #: By the group's key; those without members are to be deleted.
        self._groups: dict[str, Group] = {}
        self._parts: dict[str, Part] = {}
        #: The key of each part's group.
        self._keys: dict[int, str] = {}
        #: By the group's key and the connection.
        self._members: dict[tuple[str, str], Membership] = {}
        self._ended: set[int] = set()
        self._updated: dict[int, Membership] = {}
        #: The keys of the groups in which something changed.
        self._changed: set[str] = set()
        #: How many connections, by the group's key and the user's.
        self._users: Counter[tuple[str, str]] = Counter()

    # Reading

    def read(self, operations: Sequence[Operation]) -> None:
        """Read what the operations may change."""
        keys = {digest(one.group) for one in operations}
        groups = Group.objects.using(self._using)
        self._read_groups(groups.filter(layer=self._book.layer, key__in=keys))
        if self._parts:
            found = Membership.objects.using(self._using).filter(
                part__in=self._keys,
                connection__in={one.member.id for one in operations},
            )
            self._note_members(found)
        users = (self._records.user(one.member.user_id) for one in operations)
        self._read_users(digest(user) for user in users if user)

    def read_some(self, limit: int) -> list[Membership]:
        """Read so many of the node's memberships, and return them."""
        members = Membership.objects.using(self._using).filter(part__node=self._node)
        found = list(members.order_by("part", "connection")[:limit])
        parts = {one.part_id for one in found}
        groups = Group.objects.using(self._using)
        self._read_groups(groups.filter(part__in=parts) if parts else ())
        self._note_members(found)
        self._read_users(())
        return found

    def _read_groups(self, groups: Iterable[Group]) -> None:
        """Take groups, with what this node has in each."""
        self._groups = {group.key: group for group in groups}
        keys = {group.id: key for key, group in self._groups.items()}
        if keys:
            parts = Part.objects.using(self._using)
            for part in parts.filter(node=self._node, group__in=keys):
                key = keys[part.group_id]
                self._parts[key], self._keys[part.id] = part, key

    def _note_members(self, members: Iterable[Membership]) -> None:
        for member in members:
            self._members[self._keys[member.part_id], member.connection] = member

    def _read_users(self, joining: Iterable[str]) -> None:
        """Count the connections of those who join and of those who may leave."""
        keys = {group.id: key for key, group in self._groups.items()}
        users = {*joining, *(one.user_key for one in self._members.values())} - {""}
        if keys and users:
            members = Membership.objects.using(self._using).filter(
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
        member = self._members.get((key, operation.member.id))
        if member is None:
            return _unchanged("unchanged", self._groups.get(key))
        if isinstance(operation, Update):
            return self._update(key, member, self._records.record(operation.member))
        return self._end(key, member)

    def lose(self, member: Membership) -> tuple[Group, Part, Answer]:
        """End a membership that was read."""
        key = self._keys[member.part_id]
        answer = self._end(key, member)
        return self._groups[key], self._parts[key], answer

    def ignore_told(self) -> None:
        """Let it not count that the node's members want to be told of changes."""
        for key, part in self._parts.items():
            self._groups[key].told -= part.told
            part.told = 0
            self._changed.add(key)
        for member in self._members.values():
            member.told = False

    def _join(self, key: str, join: Join, entries: Sequence[Entry]) -> Answer:
        group = self._groups.get(key)
        if (key, join.member.id) in self._members:
            return _unchanged("unchanged", group)
        if join.limit is not None and (group.count if group else 0) >= join.limit:
            return _unchanged("full", group)
        if group is None:
            name = escape(join.group)
            group = Group(layer=self._book.layer, key=key, name=name, stem=name[:STEM])
            self._groups[key] = group
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(node=self._node, group=group)
        if not part.count:
            part.entries = json.dumps(entries)
        user = self._records.user(join.member.user_id)
        member = Membership(
            part=part,
            connection=join.member.id,
            user_key=digest(user) if user else "",
            user=user,
            record=self._records.record(join.member),
            told=join.told,
        )
        self._members[key, member.connection] = member
        return self._count(key, member, 1)

    def _update(self, key: str, member: Membership, record: str) -> Answer:
        member.record = record
        if not member._state.adding:
            self._updated[member.id] = member
        return self._answer("updated", key, member)

    def _end(self, key: str, member: Membership) -> Answer:
        del self._members[key, member.connection]
        if not member._state.adding:
            self._ended.add(member.id)
        return self._count(key, member, -1)

    def _count(self, key: str, member: Membership, sign: int) -> Answer:
        group, part = self._groups[key], self._parts[key]
        for counted in group, part:
            counted.count += sign
            counted.told += sign * member.told
        self._node.memberships += sign
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

    def _answer(self, outcome: str, key: str, member: Membership) -> Answer:
        self._changed.add(key)
        group = self._groups[key]
        # From the clock, so that it grows for a group over everything.
        revision = max(self._book.revision + 1, self._now)
        previous, told = group.revision, group.told > 0
        self._book.revision = revision
        group.revision = revision if told else 0
        connections = self._users[key, member.user_key] if member.user_key else 0
        counts = group.count, group.user_count
        return Answer(outcome, *counts, revision, told, connections, previous)

    # Writing

    def write(self) -> None:
        """Write what has changed, but for the node and the book."""
        self._delete(Membership, self._ended)
        self._write(Group, self._groups, ["count", "user_count", "told", "revision"])
        self._write(Part, self._parts, ["count", "told", "entries"])
        joined = [one for one in self._members.values() if one._state.adding]
        updated = [one for id, one in self._updated.items() if id not in self._ended]
        self._update_rows(Membership, updated, ["record"])
        self._insert(Membership, joined)

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
            model.objects.using(self._using).bulk_create(rows, ROWS)

    def _update_rows(self, model: type[M], rows: list[M], fields: list[str]) -> None:
        objects = model.objects.using(self._using)
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
            model.objects.using(self._using).filter(id__in=some).delete()


def _unchanged(outcome: str, group: Group | None) -> Answer:
    if group is None:
        return Answer(outcome, 0, 0, 0, False)
    return Answer(outcome, group.count, group.user_count, 0, False)

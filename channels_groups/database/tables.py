"""The store's operations on the database, each as it runs in a thread."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from typing import Any, Iterable, Iterator, Mapping, Sequence

from django.db import connections, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum

from channels_groups.stores.base import (
    LINGERING,
    Answer,
    Entry,
    Eviction,
    Findings,
    Holdings,
    Incarnation,
    Join,
    LeaseLost,
    Leave,
    Loss,
    Operation,
    Renewal,
    StoreRebuilding,
)

from .ledger import Ledger
from .models import Book, Group, Membership, Node, Part, Watcher, lingering_id
from .texts import Records, digest, unescape
from .vendors import Clock, Vendor
from .verification import Verification

#: Seconds that the living nodes have for writing back what was lost.
REBUILD = 2.2
#: Seconds for which an evicted node may ask what its last commit did.
KEPT = 600
#: A renewal is missed when it is overdue by so much of itself.
PATIENCE = 1.6
#: Rows that are wiped at once.
WIPED = 5000


class Tables:
    """What nodes write into one layer's book, and how they look after it.

    Each transaction begins with a lock on the book: one follows the other, so that
    revisions are in order. A renewal needs it only if something seems wrong.
    """

    def __init__(
        self, using: str, layer: str, vendor: Vendor, records: Records
    ) -> None:
        self._using = using
        self._layer = layer
        self._lingering_id = lingering_id(layer)
        self._vendor = vendor
        self._records = records
        #: The connection that holds each node's name.
        self._holders: dict[str, Any] = {}

    def register(self, node: Incarnation, epoch: str, lease: float) -> str | None:
        """Do as BaseStore.register(), with None for StoreRebuilding."""
        with self._new_book() as (book, now):
            rebuild = now + _micro(REBUILD)
            if not book.epoch:
                connection = connections[self._using]
                emptied = epoch or self._vendor.is_any_held(connection, self._layer)
                self._begin_epoch(book, rebuild if emptied else 0)
            if book.void and self._wipe():
                book.void, book.groups = False, 0
                book.rebuilding = rebuild if book.rebuilding else 0
            if not book.void:
                self._register(node, now, lease)
            book.save(using=self._using)
        if book.void:
            return None
        self._hold(node)
        return book.epoch

    def renew(
        self,
        node: Incarnation,
        epoch: str,
        lease: float,
        renewal: float,
        holdings: Holdings,
    ) -> Renewal:
        """Do as BaseStore.renew()."""
        rows = self._nodes().filter(id=node.id, deadline__gt=0)
        deadline, connections = Clock() + _micro(lease), holdings.connections
        renewed = rows.update(deadline=deadline, connections=connections)
        known = self._books().filter(epoch=epoch).exists()
        state = "alive"
        if not renewed or not known or self._is_damaged(node, holdings):
            state, epoch = self._judge(node, epoch, holdings)
        watchers = self._watchers()
        if not self._hold(node):
            return Renewal(state, epoch, [], True, watchers)
        overdue = self._overdue(node, lease - renewal * PATIENCE)
        return Renewal(state, epoch, overdue, False, watchers, self._taken_from(node))

    def commit(
        self,
        node: Incarnation,
        sequence: int,
        operations: Sequence[Operation],
        entries: Mapping[str, Sequence[Entry]],
        restore: bool,
    ) -> list[Answer]:
        """Do as BaseStore.commit()."""
        with self._book() as (book, now):
            row = self._nodes(gone=True).filter(id=node.id).first()
            if book is None or row is None:
                raise LeaseLost
            if row.sequence == sequence:
                return [self._unpack(*one) for one in json.loads(row.answers)]
            if not row.deadline or sequence < row.sequence:
                raise LeaseLost
            if not restore and book.rebuilding > now:
                raise StoreRebuilding
            nobody = self._nobody() if any(map(_may_linger, operations)) else None
            ledger = Ledger(self._using, book, now, row, self._records, nobody)
            ledger.read(operations)
            answers = [ledger.apply(one, entries) for one in operations]
            ledger.write()
            self._update_node(
                row,
                sequence=sequence,
                answers=json.dumps([self._pack(answer) for answer in answers]),
                memberships=row.memberships,
                taken=row.taken,
            )
            self._update_book(book)
            return answers

    def evict(
        self,
        node: Incarnation,
        sequence: int,
        dead: str,
        lease: float,
        renewal: float,
        limit: int,
    ) -> Eviction:
        """Do as BaseStore.evict()."""
        with self._book() as (book, now):
            mine = self._nodes().filter(id=node.id).first()
            if book is None or mine is None:
                return Eviction([], [], True)
            if mine.evicting == sequence:
                return self._unpack_eviction(mine.eviction)
            if dead == LINGERING:
                eviction = self._end_graces(book, now, limit)
            else:
                # Locked, so that it does not renew its lease meanwhile.
                gone = self._nodes().select_for_update().filter(id=dead).first()
                patience = lease - renewal * PATIENCE
                if gone is None or not self._is_overdue(gone, now, patience):
                    return Eviction([], [], True)
                eviction = self._evict(book, now, gone, limit)
            self._update_node(mine, evicting=sequence, eviction=eviction)
            self._update_book(book)
            return self._unpack_eviction(eviction)

    def release(self, node: Incarnation) -> None:
        """Do as BaseStore.release()."""
        with self._book():
            rows = self._nodes().filter(id=node.id)
            rows.filter(memberships__lte=0).delete()
            # Something is left in its name: let it be evicted.
            rows.update(deadline=0, sequence=0, answers="[]")
        self.forget(node)

    def forget(self, node: Incarnation) -> None:
        """Do as BaseStore.forget()."""
        connection = connections[self._using]
        holder = self._holders.pop(node.id, None)
        if holder is not None and holder is connection.connection:
            self._vendor.let_go(connection, self._layer, node.id)

    # For whoever operates it

    def watch(self, channel: str, seconds: float) -> None:
        """Do as BaseStore.watch()."""
        watchers = Watcher.objects.using(self._using).filter(layer=self._layer)
        with self._book():
            watchers.filter(Q(channel=channel) | Q(until__lte=Clock())).delete()
            if seconds:
                until = Clock() + _micro(seconds)
                watchers.create(layer=self._layer, channel=channel, until=until)

    def verify(self, cursor: Any, mend: bool) -> tuple[Findings, Any]:
        """Do as BaseStore.verify(); nothing changes while it looks at a page."""
        with self._book() as (book, now):
            if book is None:
                return Findings(0, []), None
            if book.void or book.rebuilding > now:
                raise StoreRebuilding
            return Verification(self._using, book, mend).page(cursor)

    # The book

    @contextmanager
    def _book(self) -> Iterator[tuple[Book | None, int]]:
        """Begin a transaction with the lock on the book, and tell the time."""
        with transaction.atomic(self._using):
            self._vendor.begin(connections[self._using])
            books = self._books().select_for_update()
            found = books.annotate(now=Clock()).first()
            yield found, found.now if found else 0

    @contextmanager
    def _new_book(self) -> Iterator[tuple[Book, int]]:
        """Do as _book(), and make the book if it is not there."""
        if not self._books().exists():
            new = Book(layer=self._layer)
            Book.objects.using(self._using).bulk_create([new], ignore_conflicts=True)
        with self._book() as (book, now):
            assert book
            yield book, now

    def _begin_epoch(self, book: Book, rebuild: int) -> None:
        """Give the data a new name; what is there is void, to be wiped."""
        book.epoch, book.void, book.rebuilding = uuid.uuid4().hex, True, rebuild
        self._nodes().delete()

    def _wipe(self) -> bool:
        """Wipe some of what is void or belongs nowhere; return if nothing is left."""
        groups = Group.objects.using(self._using)
        parts = Part.objects.using(self._using)
        members = Membership.objects.using(self._using)
        for rows in (
            members.filter(part__group__layer=self._layer),
            members.filter(~Exists(parts.filter(id=OuterRef("part")))),
            parts.filter(group__layer=self._layer),
            parts.filter(~Exists(groups.filter(id=OuterRef("group")))),
            groups.filter(layer=self._layer),
        ):
            ids = list(rows.values_list("id", flat=True)[:WIPED])
            rows.model.objects.using(self._using).filter(id__in=ids).delete()
            if len(ids) == WIPED:
                return False
        return True

    def _books(self) -> QuerySet[Book]:
        return Book.objects.using(self._using).filter(layer=self._layer)

    def _update_book(self, book: Book) -> None:
        self._books().update(revision=book.revision, groups=book.groups)

    # Nodes

    def _nodes(self, gone: bool = False) -> QuerySet[Node]:
        """Return the nodes that have a lease, or had; ``gone``: the evicted too."""
        nodes = Node.objects.using(self._using).filter(layer=self._layer)
        return nodes if gone else nodes.filter(evicted_until=0)

    def _update_node(self, node: Node, **values: Any) -> None:
        """Write some fields: a renewal may write others at the same time."""
        Node.objects.using(self._using).filter(id=node.id).update(**values)

    def _register(self, node: Incarnation, now: int, lease: float) -> None:
        self._nodes(gone=True).filter(evicted_until__range=(1, now)).delete()
        Node.objects.using(self._using).update_or_create(
            id=node.id,
            defaults={
                "layer": self._layer,
                "channel": node.channel,
                "process": node.process,
                "deadline": Clock() + _micro(lease),
            },
        )

    def _hold(self, node: Incarnation) -> bool:
        """Lock the node's name; return whether it has been all the time."""
        connection = connections[self._using]
        if self._holders.get(node.id) is connection.connection:
            return True
        self._vendor.hold(connection, self._layer, node.id)
        self._holders[node.id] = connection.connection
        return False

    def _nobody(self) -> Node:
        """Return the row of those who linger, perhaps a new one."""
        row = self._nodes().filter(id=self._lingering_id).first()
        return row or Node(id=self._lingering_id, layer=self._layer, deadline=0)

    def _due(self) -> QuerySet[Membership]:
        """Return those whose grace has ended."""
        members = Membership.objects.using(self._using)
        members = members.filter(until__gt=0, until__lte=Clock())
        return members.filter(part__node=self._lingering_id)

    def _watchers(self) -> list[str]:
        watchers = Watcher.objects.using(self._using).filter(layer=self._layer)
        found = watchers.filter(until__gt=Clock())
        return list(found.values_list("channel", flat=True))

    def _taken_from(self, node: Incarnation) -> list[tuple[str, str]]:
        rows = self._nodes().filter(id=node.id).exclude(taken="[]")
        taken = [
            place for text in rows.values_list("taken") for place in json.loads(*text)
        ]
        groups = Group.objects.using(self._using).filter(layer=self._layer)
        names = dict(
            groups.filter(key__in={key for key, _ in taken}).values_list("key", "name")
        )
        return [(unescape(names[key]), id) for key, id in taken if key in names]

    def _overdue(self, node: Incarnation, patience: float) -> list[str]:
        """Return the other nodes that may be evicted."""
        others = self._nodes().exclude(id__in=[node.id, self._lingering_id])
        silent = others.filter(deadline__lte=Clock() + _micro(patience))
        overdue = [
            one.id
            for one in silent.annotate(now=Clock())
            if self._is_overdue(one, one.now, patience)
        ]
        return [*overdue, LINGERING] if self._due().exists() else overdue

    def _is_overdue(self, node: Node, now: int, patience: float) -> bool:
        """Return whether a lease has run out, or a node that was killed is silent."""
        if node.deadline <= now:
            return True
        if node.deadline > now + _micro(patience):
            return False
        connection = connections[self._using]
        return not self._vendor.held(connection, self._layer, [node.id])

    def _judge(
        self, node: Incarnation, epoch: str, holdings: Holdings
    ) -> tuple[str, str]:
        """Return the state and the epoch of a node with which something is wrong."""
        with self._new_book() as (book, now):
            row = self._nodes(gone=True).filter(id=node.id).first()
            rebuild = now + _micro(REBUILD)
            is_evicted = row is not None and not row.deadline
            if not book.epoch or (
                book.epoch == epoch
                and not is_evicted
                and self._is_damaged(node, holdings)
            ):
                # Nobody's data can be trusted: all nodes write theirs back.
                self._begin_epoch(book, rebuild)
                book.save(using=self._using)
                return ("lost" if is_evicted else "emptied"), book.epoch
            if row is not None and row.deadline:
                return "alive", book.epoch
            # An evicted node's leaves were told of, whatever was lost since.
            is_lost = is_evicted or book.epoch == epoch
            return ("lost" if is_lost else "emptied"), book.epoch

    # What is there of a node

    def _is_damaged(self, node: Incarnation, holdings: Holdings) -> bool:
        """Return whether the tables lack what a node is sure of.

        They may seem to without a lock on the book: the queries follow one another.
        """
        row = self._nodes(gone=True).filter(id=node.id).first()
        if row is None:
            parts = Part.objects.using(self._using)
            return parts.filter(node=node.id).exists()
        if row.sequence != holdings.sequence:
            # If it is greater, a commit is under way.
            return row.sequence < holdings.sequence
        taken = Counter(key for key, _ in json.loads(row.taken))
        if row.memberships + taken.total() != holdings.size:
            return True
        return self._are_groups_damaged(node, holdings, taken)

    def _are_groups_damaged(
        self, node: Incarnation, holdings: Holdings, taken: Counter[str]
    ) -> bool:
        names = {digest(name): name for name in holdings.groups}
        if not names:
            return False
        groups = Group.objects.using(self._using)
        groups = groups.filter(layer=self._layer, key__in=names)
        counts = {
            row["key"]: row for row in groups.values("key", "count", "user_count")
        }
        parts = Part.objects.using(self._using).filter(group__in=groups)
        totals = dict(parts.values_list("group__key").annotate(Sum("count")))
        mine = dict(parts.filter(node=node.id).values_list("group__key", "count"))
        members = Membership.objects.using(self._using)
        members = members.filter(part__node=node.id, part__group__in=groups)
        found = dict(members.values_list("part__group__key").annotate(Count("id")))
        nothing = {"count": 0, "user_count": 0}
        for key, name in names.items():
            expected, user = holdings.groups[name]
            expected -= taken[key]
            group = counts.get(key, nothing)
            if not expected == mine.get(key, 0) == found.get(key, 0):
                return True
            if group["count"] != totals.get(key, 0):
                return True
            if user is not None and not taken[key] and not group["user_count"]:
                return True
        return False

    # Evicting

    def _evict(self, book: Book, now: int, gone: Node, limit: int) -> str:
        """Take members out of a dead node; return the answer as it is kept."""
        ledger = Ledger(self._using, book, now, gone, self._records)
        members = ledger.read_some(limit)
        ledger.ignore_told()
        losses, entries = self._lose(ledger, members)
        parts = Part.objects.using(self._using)
        done = not parts.filter(node=gone.id).exists()
        self._update_node(
            gone,
            deadline=0,
            memberships=gone.memberships,
            evicted_until=now + _micro(KEPT) if done else 0,
        )
        return json.dumps([losses, entries, done])

    def _end_graces(self, book: Book, now: int, limit: int) -> str:
        """Do as _evict() with those who lingered for too long."""
        nobody = self._nobody()
        ledger = Ledger(self._using, book, now, nobody, self._records)
        losses, _ = self._lose(ledger, ledger.read_due(limit))
        self._update_node(nobody, memberships=nobody.memberships)
        self._nodes().filter(id=nobody.id, memberships__lte=0).delete()
        return json.dumps([losses, [], not self._due().exists()])

    def _lose(
        self, ledger: Ledger, members: Iterable[Membership]
    ) -> tuple[list[Any], list[Any]]:
        """End memberships; return them, and the entries of the parts that end."""
        losses, entries = [], []
        for member in members:
            group, part, answer = ledger.lose(member)
            row = member.connection, member.user, member.record
            losses.append([group.name, *row, self._pack(answer)])
            if not part.count:
                entries += json.loads(part.entries)
        ledger.write()
        return losses, entries

    # Answers, as they are kept: sealed as the rows are

    def _unpack_eviction(self, eviction: str) -> Eviction:
        losses, entries, done = json.loads(eviction)
        return Eviction(
            [
                Loss(unescape(name), self._records.member(*row), self._unpack(*answer))
                for name, *row, answer in losses
            ],
            [Entry(*entry) for entry in entries],
            done,
        )

    def _pack(self, answer: Answer) -> list[Any]:
        packed = list(_values(answer))
        former = answer.former
        if former is not None:
            user = self._records.user(former.user_id)
            packed[FORMER] = [former.id, user, self._records.record(former)]
        return packed

    def _unpack(self, *packed: Any) -> Answer:
        values = list(packed)
        if values[FORMER] is not None:
            values[FORMER] = self._records.member(*values[FORMER])
        return Answer(*values)


def _may_linger(operation: Operation) -> bool:
    """Return whether it has to do with those who linger."""
    if isinstance(operation, Join):
        return operation.resume is not None
    return isinstance(operation, Leave) and operation.grace > 0


_FIELDS = [field.name for field in fields(Answer)]
FORMER = _FIELDS.index("former")
#: What dataclasses.astuple() returns, but without copying it, which takes long.
_values = attrgetter(*_FIELDS)


def _micro(seconds: float) -> int:
    return round(seconds * 1_000_000)

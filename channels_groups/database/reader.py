"""What everybody reads of a layer's book, as it runs in a thread.

What is on a node whose lease has run out is left out. Nothing is locked.
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from django.db.models import Min, Q, QuerySet, Sum

from channels_groups.stores.base import (
    LINGERING,
    PAGE,
    Member,
    NodeState,
    StoreRebuilding,
    Summary,
)

from .models import STEM, Book, Group, Membership, Node, Part, lingering_id
from .texts import Records, digest, escape, unescape
from .vendors import Clock


class Reader:
    """The reading half of BaseStore for one layer's book in one database."""

    def __init__(self, using: str, layer: str, records: Records) -> None:
        self._using = using
        self._layer = layer
        self._lingering_id = lingering_id(layer)
        self._records = records

    def count(self, group: str) -> int:
        return _sum(self._parts(group), "count")

    def user_count(self, group: str) -> int:
        found = self._group(group).values_list("count", "user_count").first()
        if found is None or found[0] == self.count(group):
            return found[1] if found else 0
        return self._count_living_users(group)

    def users(self, group: str) -> set[str]:
        users = self._members(group).exclude(user_key="").values("user_key")
        found = users.annotate(one=Min("user")).values_list("one", flat=True)
        return {self._records.open_user(user) or "" for user in found}

    def member(self, group: str, id: str) -> Member | None:
        row = self._members(group).filter(connection=id).first()
        return self._member(row) if row else None

    def summaries(self, groups: Sequence[str]) -> list[Summary]:
        keys = {digest(group): group for group in groups}
        rows = Group.objects.using(self._using)
        rows = rows.filter(layer=self._layer, key__in=keys)
        living = Q(part__node__deadline__gt=Clock())
        found = rows.annotate(living=Sum("part__count", filter=living, default=0))
        summaries = dict.fromkeys(keys, Summary(0, 0, 0))
        for row in found.values("key", "revision", "count", "user_count", "living"):
            users = row["user_count"]
            if row["living"] != row["count"]:
                users = self._count_living_users(keys[row["key"]])
            summaries[row["key"]] = Summary(row["revision"], row["living"], users)
        rebuilding = Q(void=True) | Q(rebuilding__gt=Clock())
        books = Book.objects.using(self._using).filter(layer=self._layer)
        if books.filter(rebuilding).exists():
            raise StoreRebuilding
        return [summaries[key] for key in map(digest, groups)]

    def user_members(
        self, user_id: str, cursor: Any
    ) -> tuple[list[tuple[str, Member]], Any]:
        members = Membership.objects.using(self._using).filter(
            user_key=digest(self._records.user(user_id)),
            part__group__layer=self._layer,
            part__node__deadline__gt=Clock(),
            id__gt=cursor or 0,
        )
        page = list(members.select_related("part__group").order_by("id")[:PAGE])
        found = [(unescape(row.part.group.name), self._member(row)) for row in page]
        return found, page[-1].id if len(page) == PAGE else None

    def group_nodes(self, group: str) -> list[str]:
        nodes = self._parts(group).values_list("node", flat=True)
        return [LINGERING if one == self._lingering_id else one for one in nodes]

    def node_members(
        self, group: str, node: str, cursor: str, size: int
    ) -> tuple[list[Member], str]:
        node = self._lingering_id if node == LINGERING else node
        rows = self._members(group).filter(part__node=node, connection__gt=cursor)
        page = list(rows.order_by("connection")[: size + 1])
        members = [self._member(row) for row in page[:size]]
        return members, members[-1].id if len(page) > size else ""

    def groups(self, prefix: str, cursor: Any) -> tuple[list[tuple[str, int]], Any]:
        if prefix:
            page = self._groups_like(escape(prefix)[:STEM], cursor)
        else:
            page = self._biggest_groups(cursor)
        groups = [
            (name, count)
            for name, count in self._count_living(page)
            if count and name.startswith(prefix)
        ]
        if len(page) < PAGE:
            return groups, None
        return groups, (page[-1].stem if prefix else page[-1].count, page[-1].id)

    def ranking(self, first: int, size: int, ascending: bool) -> list[tuple[str, int]]:
        order = ("count", "id") if ascending else ("-count", "-id")
        groups = Group.objects.using(self._using).filter(layer=self._layer)
        return self._count_living(groups.order_by(*order)[first : first + size])

    def group_count(self) -> int:
        nodes = self._nodes().filter(deadline__lte=Clock(), memberships__gt=0)
        if nodes.exists():
            living = self._living_parts()
            return living.values("group").distinct().count()
        books = Book.objects.using(self._using).filter(layer=self._layer, void=False)
        return books.values_list("groups", flat=True).first() or 0

    def membership_count(self) -> int:
        return _sum(self._nodes().filter(deadline__gt=Clock()), "memberships")

    def channels(self) -> list[str]:
        nodes = self._nodes().filter(deadline__gt=Clock())
        nodes = nodes.exclude(id=self._lingering_id)
        return list(nodes.values_list("channel", flat=True))

    def nodes(self) -> list[NodeState]:
        return [
            NodeState(
                *(0, node.id, node.process, node.connections, node.memberships),
                (node.deadline - node.now) / 1_000_000,
            )
            for node in self._nodes().annotate(now=Clock())
            if node.id != self._lingering_id
        ]

    # Below

    def _nodes(self) -> QuerySet[Node]:
        nodes = Node.objects.using(self._using)
        return nodes.filter(layer=self._layer, evicted_until=0)

    def _group(self, group: str) -> QuerySet[Group]:
        groups = Group.objects.using(self._using)
        return groups.filter(layer=self._layer, key=digest(group))

    def _living_parts(self) -> QuerySet[Part]:
        parts = Part.objects.using(self._using).filter(group__layer=self._layer)
        return parts.filter(node__deadline__gt=Clock())

    def _parts(self, group: str) -> QuerySet[Part]:
        return self._living_parts().filter(group__key=digest(group))

    def _members(self, group: str) -> QuerySet[Membership]:
        members = Membership.objects.using(self._using)
        return members.filter(
            part__group__layer=self._layer,
            part__group__key=digest(group),
            part__node__deadline__gt=Clock(),
        )

    def _count_living_users(self, group: str) -> int:
        users = self._members(group).exclude(user_key="")
        return users.values("user_key").distinct().count()

    def _count_living(self, groups: Iterable[Group]) -> list[tuple[str, int]]:
        """Return names with the number of living members."""
        page = list(groups)
        parts = self._living_parts().filter(group__in=page)
        counts = dict(parts.values_list("group").annotate(Sum("count")))
        return [(unescape(row.name), counts.get(row.id, 0)) for row in page]

    def _biggest_groups(self, cursor: Any) -> list[Group]:
        """Return those with most members first, after a count and an id."""
        groups = Group.objects.using(self._using).filter(layer=self._layer)
        if cursor:
            count, id = cursor
            groups = groups.filter(Q(count__lt=count) | Q(count=count, id__lt=id))
        return list(groups.order_by("-count", "-id")[:PAGE])

    def _groups_like(self, stem: str, cursor: Any) -> list[Group]:
        """Return those whose stem begins so, after a stem and an id."""
        groups = Group.objects.using(self._using).filter(
            layer=self._layer, stem__gte=stem, stem__lt=stem + "\x7f"
        )
        if cursor:
            last, id = cursor
            groups = groups.filter(Q(stem__gt=last) | Q(stem=last, id__gt=id))
        return list(groups.order_by("stem", "id")[:PAGE])

    def _member(self, row: Membership) -> Member:
        return self._records.member(row.connection, row.user, row.record)


def _sum(rows: QuerySet[Any], field: str) -> int:
    return rows.aggregate(sum=Sum(field))["sum"] or 0

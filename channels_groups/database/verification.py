"""Comparing what a layer's book counts with the members that there are."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Callable, TypeVar

from django.db.models import Count, Exists, Max, Model, OuterRef, QuerySet

from channels_groups.stores.base import Disagreement, Findings

from .models import Book, Group, Membership, Node, Part, lingering_id
from .texts import unescape

#: Rows of one kind on a page; whoever joins meanwhile waits for it.
PAGE = 200
#: A page of groups or nodes ends with so many members, if one alone has not more.
LIMIT = 10_000

LOST = "Those who linger are not found."
WHO: dict[type[Model], str] = {
    Book: "The layer",
    Node: "A process",
    Group: "It",
    Part: "A process",
}
WHAT = {
    "groups": "groups",
    "memberships": "memberships",
    "count": "members",
    "user_count": "users",
    "told": "members who want to be told",
}

M = TypeVar("M", bound=Model)


class Verification:
    """A page of it, under the lock on the book."""

    def __init__(self, using: str, book: Book, mend: bool) -> None:
        self._using = using
        self._book = book
        self._lingering_id = lingering_id(book.layer)
        self._mend = mend
        self._found: list[Disagreement] = []

    def page(self, cursor: Any) -> tuple[Findings, Any]:
        """Return the findings of a page and the next cursor: (step, last id)."""
        step, last = cursor or (0, None)
        steps: tuple[Callable[[Any], list[Any]], ...]
        steps = (
            *(self._stray_parts, self._stray_members),
            *(self._groups, self._nodes, self._total),
        )
        ids = steps[step](last)
        findings = Findings(len(ids), self._found)
        if ids:
            return findings, (step, ids[-1])
        return findings, (step + 1, None) if step + 1 < len(steps) else None

    def _stray_parts(self, last: Any) -> list[Any]:
        """Find parts of no group, and those of nodes without a lease."""
        groups, nodes = self._rows(Group), self._rows(Node)
        ids = self._ids(Part, last)
        parts = self._rows(Part).filter(pk__in=ids)
        self._find_stray(parts.filter(~Exists(groups.filter(pk=OuterRef("group")))))
        lost = parts.filter(group__layer=self._book.layer)
        lost = lost.filter(~Exists(nodes.filter(pk=OuterRef("node"))))
        for node in sorted(set(lost.values_list("node", flat=True))):
            lingers = node == self._lingering_id
            what = LOST if lingers else "A process without a lease has members."
            self._report(what, node=node)
            if self._mend:  # Its memberships are counted with the nodes.
                deadline = self._last_grace() if lingers else 0
                nodes.create(id=node, layer=self._book.layer, deadline=deadline)
        return ids

    def _stray_members(self, last: Any) -> list[Any]:
        """Find members of no part."""
        ids = self._ids(Membership, last)
        members, parts = self._rows(Membership).filter(pk__in=ids), self._rows(Part)
        self._find_stray(members.filter(~Exists(parts.filter(pk=OuterRef("part")))))
        return ids

    def _find_stray(self, rows: QuerySet[Any]) -> None:
        ids = list(rows.values_list("pk", flat=True))
        if ids:
            self._report("Something that belongs to no group is left over.")
        if self._mend:
            self._rows(rows.model).filter(pk__in=ids).delete()

    def _groups(self, last: Any) -> list[Any]:
        page = self._sized(Group, "count", last)
        ids = [group.id for group in page]
        members = self._rows(Membership).filter(part__group__in=ids)
        parts = self._rows(Part).filter(group__in=ids).select_related("group")
        counts, told = _count(members, "part"), _count(_told(members), "part")
        for part in parts:
            right = {"count": counts.get(part.id, 0), "told": told.get(part.id, 0)}
            self._compare(part, right, name=part.group.name, node=part.node_id)
        self._compare_groups(page, members)
        return ids

    def _compare_groups(self, page: list[Group], members: QuerySet[Membership]) -> None:
        by = "part__group"
        counts, told = _count(members, by), _count(_told(members), by)
        users = _count(members.exclude(user_key=""), by, "user_key")
        for group in page:
            right = {
                "count": counts.get(group.id, 0),
                "user_count": users.get(group.id, 0),
                "told": told.get(group.id, 0),
            }
            self._compare(group, right, name=group.name)

    def _nodes(self, last: Any) -> list[Any]:
        page = self._sized(Node, "memberships", last)
        ids = [node.id for node in page]
        members = self._rows(Membership).filter(part__node__in=ids)
        counts = _count(members, "part__node")
        for node in page:
            self._compare(node, {"memberships": counts.get(node.id, 0)}, node=node.id)
            if node.id == self._lingering_id and node.deadline < self._last_grace():
                self._report(LOST, node=node.id)
                if self._mend:
                    row = self._rows(Node).filter(pk=node.pk)
                    row.update(deadline=self._last_grace())
        return ids

    def _last_grace(self) -> int:
        """Return when the last grace ends; until then its row must count as alive."""
        lingering = self._rows(Membership).filter(part__node=self._lingering_id)
        return lingering.aggregate(last=Max("until"))["last"] or 0

    def _total(self, last: Any) -> list[Any]:
        groups = self._rows(Group).filter(layer=self._book.layer).count()
        self._compare(self._book, {"groups": groups})
        return []

    def _compare(
        self,
        row: Model,
        right: dict[str, int],
        name: str | None = None,
        node: str | None = None,
    ) -> None:
        """Report what a row counts wrongly; one that counts nothing is left over."""
        wrong = {
            field: number
            for field, number in right.items()
            if getattr(row, field) != number
        }
        for field, number in wrong.items():
            what = f"{WHO[type(row)]} counts {getattr(row, field)} {WHAT[field]}"
            self._report(f"{what} and has {number}.", name, node)
        rows = self._rows(type(row)).filter(pk=row.pk)
        if not self._mend:
            return
        if right.get("count") == 0:
            rows.delete()
        elif wrong:
            rows.update(**wrong)

    def _report(
        self, what: str, name: str | None = None, node: str | None = None
    ) -> None:
        group = None if name is None else unescape(name)
        self._found.append(Disagreement(what, 0, group, node))

    def _ids(self, model: type[Model], last: Any) -> list[Any]:
        """Return the keys of a page of all rows, whatever they belong to."""
        return list(self._page(self._rows(model), last).values_list("pk", flat=True))

    def _sized(self, model: type[M], size: str, last: Any) -> list[M]:
        """Return a page of the layer's rows, the last of which reaches LIMIT."""
        rows = self._rows(model).filter(layer=self._book.layer)
        page = list(self._page(rows, last))
        totals = accumulate(getattr(row, size) for row in page)
        return page[: 1 + sum(total < LIMIT for total in totals)]

    def _page(self, rows: QuerySet[M], last: Any) -> QuerySet[M]:
        rows = rows if last is None else rows.filter(pk__gt=last)
        return rows.order_by("pk")[:PAGE]

    def _rows(self, model: type[M]) -> QuerySet[M]:
        return model._default_manager.using(self._using)


def _told(members: QuerySet[Membership]) -> QuerySet[Membership]:
    """Return those who want to be told; what the dead want does not count."""
    return members.filter(told=True, part__node__deadline__gt=0)


def _count(rows: QuerySet[Any], by: str, what: str = "pk") -> dict[Any, int]:
    return dict(rows.values_list(by).annotate(Count(what, distinct=what != "pk")))

"""Pages of groups, members and processes, each of a bounded size, for an operator.

A place in a listing is text that may stand in an address.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Callable, NamedTuple, Sequence

from django.core import signing

from .stores.base import LINGERING, PAGE, BaseStore, Member, Summary

#: Rows of a page.
SIZE = 100
#: So many groups are read and sorted as one wants; of more, only the store's order.
WHOLE = 1000
#: So many groups, or about, a search looks at for a page, and for so many seconds.
LOOKED, PATIENCE = 100_000, 2.0
#: A search that looks at more is not to be repeated every other second.
CHEAP = 10_000
#: By what groups can be sorted; most members first is the default.
ORDERS = ("-members", "members", "name", "-name")


@dataclass
class GroupPage:
    """Some groups, as (name, members), of ``total`` that the store holds.

    found: so many match, in the part of the groups that was looked at; sortable: by
    name too; first: the number of the first row, from 1; previous, next: places of the
    neighbours, further: that of the next part, "" where there is none; later: it is
    not the first part; costly: a search that is not to be repeated every other second.
    """

    groups: list[tuple[str, int]]
    total: int
    found: int
    order: str
    sortable: bool = True
    first: int = 1
    previous: str = ""
    next: str = ""
    further: str = ""
    later: bool = False
    costly: bool = False

    @property
    def last(self) -> int:
        return self.first + len(self.groups) - 1


async def list_groups(
    store: BaseStore, prefix: str = "", order: str = "", place: str = ""
) -> GroupPage:
    """Return a page of the groups whose names begin with ``prefix``.

    Up to WHOLE groups are sorted in any of ORDERS. Of more, without a prefix, those
    with most or fewest members come first and a page reads SIZE of each shard. With
    one, the groups are searched in parts, each of which ends with WHOLE found, with
    LOOKED looked at or after PATIENCE, and is sorted by itself.
    """
    order = order if order in ORDERS else ORDERS[0]
    total = await store.group_count()
    if not prefix and total > WHOLE:
        order = order if "members" in order else ORDERS[0]
        return await _list_ranks(store, total, order, place)
    rank, _, part = place.partition(".")
    cursor = _read_cursor(store, part) if prefix else None
    groups, further, costly = await _find_groups(store, prefix, cursor)
    groups.sort()
    by_name = "name" in order
    groups.sort(key=lambda one: one[0] if by_name else one[1], reverse=order[0] == "-")
    (first,) = _read_ranks(rank, 1)
    last = first + SIZE
    here = f".{part}" if cursor else ""
    return GroupPage(
        groups[first:last],
        *(total, len(groups), order),
        first=first + 1,
        previous=f"{max(0, first - SIZE)}{here}" if first else "",
        next=f"{last}{here}" if last < len(groups) else "",
        further=f"0.{signing.dumps(further, salt=_salt(store))}" if further else "",
        later=bool(cursor),
        costly=costly,
    )


async def _find_groups(
    store: BaseStore, prefix: str, begun: Any
) -> tuple[list[tuple[str, int]], Any, bool]:
    """Return groups by prefix, the cursor of the next part, and if it is costly."""
    found: dict[str, int] = {}
    deadline, cursor = time.monotonic() + PATIENCE, begun
    for looked in range(PAGE, LOOKED + 1, PAGE):
        page, cursor = await store.groups(prefix, cursor)
        found.update(page)
        is_late = time.monotonic() > deadline
        if cursor is None or len(found) >= WHOLE or is_late:
            break
    if not prefix:
        cursor = None
    elif cursor and not begun and (count := await store.count(prefix)):
        found[prefix] = count  # Who asks for the whole name finds it in any case.
    return list(found.items()), cursor, is_late or looked > CHEAP


def _read_cursor(store: BaseStore, part: str) -> Any:
    """Return the store's cursor; None, the beginning, if it was not given by us."""
    try:
        return signing.loads(part, salt=_salt(store))
    except signing.BadSignature:
        return None


def _salt(store: BaseStore) -> str:
    """Return what makes one store's cursors useless for another."""
    return f"{__name__}.{type(store).__name__}.{store.shards}"


async def _list_ranks(
    store: BaseStore, total: int, order: str, place: str
) -> GroupPage:
    """Merge the shards' orders. A place is the rank in each, "<" before it: back."""
    ranks = _read_ranks(place.lstrip("<"), store.shards)
    if place.startswith("<"):
        for shard in await _merge(store, order, ranks, back=True):
            ranks[shard.number] -= 1
    here, first, groups = _write_ranks(ranks), sum(ranks) + 1, []
    for shard in await _merge(store, order, ranks):
        ranks[shard.number] += 1
        groups.append(shard.group)
    return GroupPage(
        [group for group in groups if group[1]],
        *(total, total, order),
        sortable=False,
        first=first,
        previous=f"<{here}" if first > 1 else "",
        next=_write_ranks(ranks) if sum(ranks) < total and groups else "",
    )


async def largest_groups(
    store: BaseStore,
    prefix: str = "",
    limit: int | None = None,
    progress: Callable[[int], None] = lambda read: None,
) -> list[tuple[str, int]]:
    """Return the groups with most members, as (name, members), or all of them.

    With a prefix all that match are looked at, ``limit`` of them kept in memory.
    progress: is called with how many have been read.
    """
    found: dict[str, int] = {}  # A store may list a group twice, as it changes.
    read = 0
    if limit is not None and not prefix:
        for shard in range(store.shards):
            found.update(await store.ranking(shard, 0, limit))
    else:
        cursor = None
        while True:
            page, cursor = await store.groups(prefix, cursor)
            found.update(page)
            read += len(page)
            progress(read)
            if limit is not None:
                largest = heapq.nlargest(limit, found.items(), key=lambda one: one[1])
                found = dict(largest)
            if cursor is None:
                break
    groups = [one for one in found.items() if one[1] > 0]
    groups.sort(key=lambda one: (-one[1], one[0]))
    return groups[:limit]


async def summarize(store: BaseStore, groups: Sequence[str]) -> dict[str, Summary]:
    """Look at groups, at those of a shard in one call. It may raise StoreRebuilding."""
    shards: dict[int, list[str]] = {}
    for group in groups:
        shards.setdefault(store.shard(group), []).append(group)
    found: dict[str, Summary] = {}
    for shard, names in shards.items():
        found.update(zip(names, await store.summaries(shard, names)))
    return {group: found[group] for group in groups}


class _Ranked(NamedTuple):
    key: int
    number: int
    group: tuple[str, int]


async def _merge(
    store: BaseStore, order: str, ranks: list[int], back: bool = False
) -> list[_Ranked]:
    """Return the SIZE groups after the ranks, or those before them."""
    ascending = order == "members"
    found: list[_Ranked] = []
    for number, rank in enumerate(ranks):
        first = max(0, rank - SIZE) if back else rank
        size = rank - first if back else SIZE
        rows = await store.ranking(number, first, size, ascending) if size else []
        found += (
            _Ranked(row[1] if ascending else -row[1], number, row) for row in rows
        )
    found.sort(key=lambda one: one[:2])
    return found[-SIZE:] if back else found[:SIZE]


def _read_ranks(place: str, shards: int) -> list[int]:
    parts = place.split("-")
    if len(parts) != shards or not all(
        one.isdecimal() and len(one) <= 40 for one in parts
    ):
        return [0] * shards
    return [min(int(one), 2**31) for one in parts]


def _write_ranks(ranks: list[int]) -> str:
    return "-".join(str(rank) for rank in ranks)


@dataclass
class MemberPage:
    """Some members, each with the process it is on, of ``count`` in the group."""

    count: int
    user_count: int
    members: list[tuple[Member, str]]
    next: str = ""


async def list_members(store: BaseStore, group: str, place: str = "") -> MemberPage:
    """Return a page of about SIZE members, process by process, oldest first.

    Who is a member throughout is on one of the pages, but for who lingers and comes
    back between them. ValueError: a bad place.
    """
    count, user_count = await store.count(group), await store.user_count(group)
    begun, _, cursor = place.partition(":")
    nodes = sorted(one for one in await store.group_nodes(group) if one >= begun)
    processes = {id: str(one) for id, one in (await _processes_by_id(store)).items()}
    processes[LINGERING] = "none: may come back"
    if nodes and nodes[0] != begun:
        cursor = ""
    page = MemberPage(count, user_count, [])
    while nodes and len(page.members) < SIZE:
        members, cursor = await store.node_members(group, nodes[0], cursor, SIZE)
        members.sort(key=lambda one: (one.joined_at, one.id))
        page.members += ((one, processes.get(nodes[0], "")) for one in members)
        if not cursor:
            del nodes[0]
    if nodes:
        page.next = f"{nodes[0]}:{cursor}"
    return page


async def iterate_members(
    store: BaseStore, group: str, limit: int | None = None
) -> AsyncIterator[tuple[Member, Process | None]]:
    """Iterate over the members, process by process; None: who lingers is on none."""
    processes, left = await _processes_by_id(store), limit
    for node in await store.group_nodes(group):
        cursor = None
        while cursor != "":
            members, cursor = await store.node_members(group, node, cursor or "")
            for member in members:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield member, processes.get(node)


@dataclass
class Process:
    """A process with connections, seen in all shards and event loops.

    remaining: seconds of its shortest lease, 0 or less if that has run out.
    """

    host: str
    pid: str
    memberships: int = 0
    remaining: float = float("inf")
    ids: list[str] = field(default_factory=list)
    #: Connections of each event loop, which is the same node in all shards.
    loops: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.host}, {self.pid}" if self.pid else self.host

    @property
    def name(self) -> str:
        """Host and pid as one word, for a script."""
        return f"{self.host}:{self.pid}" if self.pid else self.host

    @property
    def connections(self) -> int:
        return sum(self.loops.values())


async def list_processes(store: BaseStore) -> list[Process]:
    """Return every process that has a lease, also one that has run out."""
    found: dict[tuple[str, str], Process] = {}
    for node in await store.nodes():
        known = node.process.rsplit(":", 2) if node.process else [node.id, "", ""]
        host, pid, loop = ["", "", *known][-3:]
        process = found.setdefault((host, pid), Process(host, pid))
        connections = max(process.loops.get(loop, 0), node.connections)
        process.loops[loop] = connections
        process.memberships += node.memberships
        process.remaining = min(process.remaining, node.remaining)
        process.ids.append(node.id)
    return [found[key] for key in sorted(found)]


async def _processes_by_id(store: BaseStore) -> dict[str, Process]:
    """Return each node's process by the node's id."""
    return {id: one for one in await list_processes(store) for id in one.ids}

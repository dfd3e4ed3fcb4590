"""Pages over several shards, which are merged into one order and back."""

import pytest

from channels_groups import listing
from channels_groups.listing import SIZE
from channels_groups.stores.base import PAGE, Join
from channels_groups.stores.memory import MemoryStore

from ..stores.lab import Lab, member


class Shards:
    """Memory stores in the place of shards."""

    def __init__(self, *stores):
        self.stores = stores
        self.shards = len(stores)

    async def group_count(self):
        return sum([await store.group_count() for store in self.stores])

    async def ranking(self, shard, first, size, ascending):
        assert 0 < size <= SIZE
        return await self.stores[shard].ranking(0, first, size, ascending)


@pytest.fixture
async def shards(monkeypatch):
    """Three shards with 730 groups, of which many have equally many members."""
    monkeypatch.setattr(listing, "WHOLE", 100)
    stores = [MemoryStore("default", None) for _ in range(3)]
    for number, store in enumerate(stores):
        node = await Lab(store).node()
        for group in range((500, 0, 230)[number]):
            name = f"shard {number}, {group}"
            joins = [Join(name, member(f"m{n}")) for n in range(1 + group % 7)]
            await node.commit(*joins)
    return Shards(*stores)


@pytest.mark.parametrize("order", ["-members", "members"])
async def test_shards_are_merged_forwards_and_backwards(shards, order):
    pages = [await listing.list_groups(shards, "", order)]
    while pages[-1].next:
        pages.append(await listing.list_groups(shards, "", order, pages[-1].next))
    assert [page.first for page in pages] == [1 + SIZE * n for n in range(8)]
    assert pages[-1].last == pages[-1].total == 730

    groups = [group for page in pages for group in page.groups]
    assert len(set(groups)) == 730
    counts = [count for _, count in groups]
    assert counts == sorted(counts, reverse=order == "-members")

    back = [pages[-1]]
    while back[-1].previous:
        back.append(await listing.list_groups(shards, "", order, back[-1].previous))
    assert [page.groups for page in back] == [page.groups for page in pages[::-1]]


@pytest.mark.parametrize(
    "place", ["", "x", "1", "-1-0-0", "1-2-3-4", "<", "<0-0-0", f"0-0-{'9' * 5000}"]
)
async def test_an_impossible_place_is_the_beginning(shards, place):
    page = await listing.list_groups(shards, "", "name", place)
    assert (page.first, page.order, page.previous) == (1, "-members", "")


async def test_beyond_the_end_is_nothing(shards):
    page = await listing.list_groups(shards, "", "", f"{10**30}-0-900")
    assert (page.groups, page.next) == ([], "")
    assert page.previous


async def test_a_group_whose_members_are_gone_is_left_out(monkeypatch):
    monkeypatch.setattr(listing, "WHOLE", 1)
    lab = Lab(MemoryStore("default", None))
    one = await lab.node()
    await one.commit(Join("a", member("1")), Join("b", member("1")))

    async def ranking(*args):
        return [("a", 1), ("gone", 0), ("b", 1)]

    monkeypatch.setattr(lab.store, "ranking", ranking)
    page = await listing.list_groups(lab.store)
    assert page.groups == [("a", 1), ("b", 1)]


class Endless(MemoryStore):
    """A search in it never ends."""

    async def groups(self, prefix, cursor):
        number = cursor[1] + 1 if cursor else 0
        return [(f"{prefix}{number}", 1)], [0, number]

    async def group_count(self):
        return 2000


async def test_a_search_ends_and_is_taken_up_again(monkeypatch):
    store = Endless("default", None)
    await (await Lab(store).node()).join("name", member("1"))
    monkeypatch.setattr(listing, "LOOKED", 3 * PAGE)
    first = await listing.list_groups(store, "name", "name")
    whole = [("name", 1)]  # Who asks for a whole name finds it in any case.
    assert first.groups == whole + [(f"name{n}", 1) for n in range(3)]
    assert first.further and not (first.later or first.costly)
    second = await listing.list_groups(store, "name", "-name", first.further)
    assert second.groups == [(f"name{n}", 1) for n in (5, 4, 3)]
    assert second.further and second.later
    monkeypatch.setattr(listing, "WHOLE", 1)
    third = await listing.list_groups(store, "name", "", second.further)
    assert third.groups == [("name6", 1)]
    monkeypatch.setattr(listing, "PATIENCE", 0)
    assert (await listing.list_groups(store, "name")).costly

    for other in (Endless, Another):
        place = first.further if other is Another else f"{first.further}x"
        page = await listing.list_groups(other("default", None), "name", "", place)
        assert not page.later, "a place that is not of this store"


class Another(Endless):
    pass


async def test_a_part_of_a_search_has_pages(monkeypatch):
    store = MemoryStore("default", None)
    node = await Lab(store).node()
    await node.commit(*(Join(f"g{n:04}", member("1")) for n in range(1600)))
    pages, place = [], ""
    while True:
        pages.append(await listing.list_groups(store, "g", "name", place))
        place = pages[-1].next or pages[-1].further
        if not place:
            break
    assert [page.later for page in pages] == [False] * 10 + [True] * 6
    names = [name for page in pages for name, _ in page.groups]
    assert names == [f"g{n:04}" for n in range(1600)]
    back = await listing.list_groups(store, "g", "name", pages[11].previous)
    assert back == pages[10] and not back.previous


class Repeating(MemoryStore):
    """Groups that change while they are read stand on two of its pages."""

    pages = [
        [("a", 5), ("b", 4)],
        [("a", 6), ("b", 3), ("c", 2)],
        [("a", 6), ("d", 1), ("gone", 0)],
    ]

    async def groups(self, prefix, cursor):
        number = cursor or 0
        return self.pages[number], number + 1 if number < 2 else None


@pytest.mark.parametrize("prefix", ["", "x"])
@pytest.mark.parametrize("limit", [None, 3])
async def test_a_group_that_is_read_twice_is_listed_once(prefix, limit, monkeypatch):
    store = Repeating("default", None)

    async def ranking(*args):
        return [("a", 5), ("b", 3), ("a", 6), ("c", 2)]

    monkeypatch.setattr(store, "ranking", ranking)
    groups = [("a", 6), ("b", 3), ("c", 2), ("d", 1)]
    assert await listing.largest_groups(store, prefix, limit) == groups[:limit]

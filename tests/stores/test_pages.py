"""What a page of very many groups costs a Redis store, by its own statistics."""

from collections import Counter

import pytest

from channels_groups.listing import LOOKED, SIZE, WHOLE, list_groups
from channels_groups.stores.base import PAGE

from .lab import member

FEW, MANY = 20_000, 250_000
ROOM = "this and no other"

on_redis = pytest.mark.parametrize("kind", ["core", "pubsub"], indirect=True)


class Index:
    """Groups that are in the index only, and what it costs to list them."""

    def __init__(self, lab, client):
        self.store = lab.store
        self.client = client
        self.key = f"{lab.prefix}:groups:index"
        self.size = 0

    def grow(self, size):
        while self.size < size:
            names = range(self.size, self.size + 10_000)
            self.client.zadd(self.key, {f"g{n:06}": 1 + n % 50 for n in names})
            self.size += 10_000

    def calls(self):
        stats = self.client.info("commandstats")
        names = "evalsha", "zscan", "zrange", "zrevrange", "hlen", "zscore"
        calls = (stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)
        return Counter(dict(zip(names, calls)))

    async def page(self, *where):
        """Return a page and how often each command was called for it."""
        before = self.calls()
        page = await list_groups(self.store, *where)
        return page, self.calls() - before


@pytest.fixture
async def index(lab):
    node = await lab.node()
    await node.join(ROOM, member("m"))
    with lab.server.client() as client:
        index = Index(lab, client)
        index.grow(FEW)
        for query in ("", ROOM, "g"):
            await index.page(query)  # From now on the server knows the scripts.
        yield index
        client.delete(index.key)
    node.held.clear()
    await node.leave(ROOM, member("m"))


@on_redis
async def test_a_page_costs_the_same_of_few_and_of_many(index):
    for order in ("-members", "members"):
        first, costs = await index.page("", order)
        second, later = await index.page("", order, first.next)
        assert len(first.groups) == len(second.groups) == SIZE
        assert costs == later and costs["evalsha"] == 2 and costs["zscan"] == 0
        index.grow(MANY)
        again, costs = await index.page("", order)
        assert costs == later and again.total == MANY + 1


@on_redis
async def test_a_search_looks_at_a_part_of_many(index):
    everything, costs = await index.page("h")
    assert (everything.found, everything.further) == (0, "")
    assert everything.costly and costs["zscan"] <= FEW / PAGE + 1

    index.grow(MANY)
    found, page, parts = Counter(), None, 0
    while page is None or page.further:
        page, costs = await index.page("g00001", "name", page.further if page else "")
        assert costs["zscan"] <= LOOKED / PAGE and costs["evalsha"] <= 2 + LOOKED / PAGE
        assert page.costly and page.later == (parts > 0)
        found.update(name for name, _ in page.groups)
        parts += 1
    assert set(found) == {f"g00001{n}" for n in range(10)}
    assert MANY / LOOKED <= parts <= 1 + MANY / LOOKED

    common, costs = await index.page("g")
    assert common.found >= WHOLE and common.further and not common.costly
    assert costs["zscan"] <= 1 + WHOLE / PAGE
    whole, costs = await index.page(ROOM)
    assert (ROOM, 1) in whole.groups

"""What each script reads and writes, told by MONITOR: the server is blocked meanwhile.

No time is measured, as other work on the machine lengthens it. A script that looks at
no more than BOUND entries takes a millisecond or so.
"""

import tracemalloc

import pytest

from channels_groups import evictor, writer
from channels_groups.manager import get_group_manager
from channels_groups.stores.base import Holdings, Join, Leave

from .lab import list_groups, member

#: Commands and entries of one call of a script.
BOUND = 2500
DEAD, SHARED, GROUPS = 20_000, 1_000, 1_500

on_core = pytest.mark.parametrize("kind", ["core"], indirect=True)

#: What reads a whole key, and what tells its size.
WHOLE = {
    **dict.fromkeys(("HGETALL", "HVALS", "HKEYS"), "HLEN"),
    **dict.fromkeys(("ZRANGE", "ZREVRANGE", "ZRANGEBYSCORE"), "ZCARD"),
    "SMEMBERS": "SCARD",
}


class Witness:
    """Counts what each call of a script costs."""

    def __init__(self, lab, client, monitor):
        self.costs = []
        self._client = client
        self._monitor = monitor
        self._call = lab.store._call

    async def __call__(self, *call):
        answer = await self._call(*call)
        self.costs.append(self._cost())
        return answer

    def _cost(self):
        """Return the commands and entries since the last time."""
        self._client.echo("that was it")
        cost = 0
        while True:
            about, _, command = self._monitor.connection.read_response().partition("] ")
            words = command[1:-1].split('" "')
            if about.endswith("lua"):
                cost += 1 + self._entries(words[0].upper(), words[1:])
            elif words[0] == "ECHO":
                return cost

    def _entries(self, command, args):
        if command in ("ZRANGE", "ZREVRANGE") and int(args[2]) >= 0:
            return int(args[2]) - int(args[1]) + 1
        if command in WHOLE:
            return self._client.execute_command(WHOLE[command], args[0])
        if command in ("HSCAN", "ZSCAN"):
            return int(args[args.index("COUNT") + 1])
        if command in ("HMGET", "HRANDFIELD"):
            return int(args[1]) if command == "HRANDFIELD" and args[1:] else len(args)
        return 0

    def dearest(self):
        """Return what the dearest call has cost since the last time."""
        costs, self.costs = self.costs, []
        return max(costs)


@pytest.fixture
async def witness(lab, monkeypatch):
    with lab.server.client() as client, client.monitor() as monitor:
        witness = Witness(lab, client, monitor)
        with monkeypatch.context() as patch:
            patch.setattr(lab.store, "_call", witness)
            yield witness


async def commit(node, operations):
    """Commit as many at once as a writer does."""
    for batch in writer.batches(operations):
        await node.commit(*batch)


@pytest.fixture
async def dying(lab):
    """A process without a lease with a large room, groups beside it, and others.

    Two processes have died. Some users have connections in both, and one lives.
    """
    living, large, small = await lab.node(), await lab.node(), await lab.node()
    users = [f"user-{number}" for number in range(DEAD)]
    await commit(large, [Join("room", member(f"l-{user}", user)) for user in users])
    again = users[:SHARED]
    await commit(small, [Join("room", member(f"s-{user}", user)) for user in again])
    groups = [f"group-{number}" for number in range(GROUPS)]
    await commit(small, [Join(one, member("m", "user-m")) for one in groups])
    await living.commit(
        *(Join("room", member(user, user)) for user in ("user-0", "ann", "bob")),
        *(Join(one, member("n", "ann")) for one in groups[:10]),
    )
    await lab.expire(large, small)
    yield living, large, small
    large.held.clear()
    small.held.clear()
    for node in large, small:
        await living.evict_all(node, limit=500)


@on_core
async def test_reading_is_bounded_while_a_large_process_is_dead(lab, dying, witness):
    store = lab.store
    witness.costs.clear()

    async def check(reading, expected):
        assert await reading == expected
        assert witness.dearest() <= BOUND

    groups = [f"group-{number}" for number in range(GROUPS)]
    counts = {one: int(number < 10) for number, one in enumerate(groups)} | {"room": 3}
    await check(store.count("room"), 3)
    await check(store.user_count("room"), 3)
    await check(store.group_count(), 11)
    await check(store.membership_count(), 13)
    assert dict(await store.ranking(0, 0, 2 * GROUPS)) == counts
    assert witness.dearest() <= BOUND
    listed, _ = await list_groups(store)
    assert dict(listed) == {one: count for one, count in counts.items() if count}
    listed, _ = await list_groups(store, "group-")
    assert dict(listed) == {one: 1 for one in groups[:10]}
    assert witness.dearest() <= BOUND
    summaries = await store.summaries(0, ["room", *groups[:500], "room"])
    assert witness.dearest() <= BOUND
    found = [(one.count, one.user_count) for one in summaries]
    assert found == [(3, 3), *[(1, 1)] * 10, *[(0, 0)] * 490, (3, 3)]
    for user, memberships in ("ann", 11), ("user-m", 0):
        members, cursor = await store.user_members(user, None)
        while cursor is not None:
            page, cursor = await store.user_members(user, cursor)
            members += page
        assert len(members) == memberships and witness.dearest() <= BOUND


@on_core
async def test_users_are_counted_while_the_dead_are_evicted(lab, dying, monkeypatch):
    """To one in two hundred, and exactly if there is nothing in between."""
    living, large, _ = dying
    store, read, evicted = lab.store, lab.store._read, 0

    async def evict_in_between(shard, script, keys, args):
        nonlocal evicted
        answer = await read(shard, script, keys, args)
        evicted += len((await living.evict(large, limit=evictor.BATCH)).losses)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(store, "_read", evict_in_between)
        counted = await store.user_count("room")
    assert counted == pytest.approx(3, abs=DEAD // 200)
    assert evicted > DEAD // 10
    assert await store.user_count("room") == 3
    assert await store.users("room") == {"user-0", "ann", "bob"}


@on_core
async def test_evicting_is_bounded(lab, dying, witness):
    living, large, small = dying
    witness.costs.clear()
    for dead in (large, small):
        for _ in range(10):
            await living.evict(dead, limit=evictor.BATCH)
    assert len(witness.costs) == 20 and witness.dearest() <= BOUND


@on_core
@pytest.mark.parametrize("rooms", [1, writer.BATCH])
async def test_a_batch_is_bounded(lab, witness, rooms):
    """As large as a writer makes them."""
    node = await lab.node()
    joins = [
        Join(f"room-{number % rooms}", member(f"m{number}", f"user-{number}"))
        for number in range(writer.BATCH)
    ]
    batch = next(writer.batches(joins))
    held = {"room-0": (len(batch) if rooms == 1 else 1, None)}
    witness.costs.clear()
    await node.commit(*batch)
    await node.renew(holdings=Holdings(1, len(batch), held))
    await node.commit(*(Leave(one.group, one.member) for one in batch))
    assert len(witness.costs) == 3 and witness.dearest() <= BOUND


@on_core
async def test_listing_holds_a_page_whatever_the_size(lab):
    node, peaks = await lab.node(), []
    group = get_group_manager().group("room")
    for first, size in (0, 5_000), (5_000, 50_000):
        joins = [Join("room", member(f"m{number}")) for number in range(first, size)]
        for start in range(0, len(joins), 500):
            await node.commit(*joins[start : start + 500])
        assert await walk(group, limit=1000) == 1000  # What is made once is there.
        del joins
        tracemalloc.start()
        try:
            assert await walk(group) == size
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]  # Pages differ a little in size.
    await lab.expire(node)
    other = await lab.node()
    await other.evict_all(node, limit=1000)
    node.held.clear()


async def walk(group, limit=None):
    """Return how many connections are listed."""
    count = 0
    async for _ in group:
        count += 1
        if count == limit:
            break
    return count

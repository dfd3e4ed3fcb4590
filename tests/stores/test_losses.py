"""A key of the store is lost, and processes die before, while or after it is mended.

Whose data the store has when the last one dies are told to have left, once. Nobody
stays in it whom nobody has, and its groups go on.
"""

from fnmatch import fnmatch

import pytest

from channels_groups.stores.base import Holdings, StoreRebuilding

from ..helpers.eventually import aeventually
from .lab import LEASE, member

in_redis = pytest.mark.parametrize("kind", ["core"], indirect=True)

#: One of each sort of key.
KEYS = [
    *("index", "leases", "epoch", "revision", "sizes", "channels", "told", "run"),
    *("nodes:room", "users:room", "members:room:node0", "node:node0"),
    *("answer:node0", "user:user-a"),
]
#: What only these keys say: who was in it, of the node that dies with it.
UNKNOWN = {"members:room:node0": {("room", "a")}, "node:node0": {"room", "alone"}}
#: So short that who has no connection is overdue at once.
RENEWAL = 0.001

keys = pytest.mark.parametrize("key", KEYS)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Let everybody have less time to write back, as they do it at once."""
    monkeypatch.setattr("channels_groups.stores.redis.RedisStore._rebuild", 200)


class Process:
    """A node that does what the library does: renew, write back, evict, tell."""

    def __init__(self, node):
        self.node = node
        self.told = []

    async def join(self, group, id):
        await self.node.join(group, member(id, f"user-{id}"), told=True)

    def holdings(self, groups=("room", "alone", "other")):
        held = {
            group: [one for name, one in self.node.held if name == group]
            for group in groups
        }
        return Holdings(
            self.node.sequence,
            len(self.node.held),
            {
                group: (len(ids), f"user-{ids[0]}" if ids else None)
                for group, ids in held.items()
            },
            ids={group: ids[0] for group, ids in held.items() if ids},
        )

    async def renew(self):
        return await self.node.renew(renewal=RENEWAL, holdings=self.holdings())

    async def write_back(self):
        await aeventually(self.node.register, ignoring=(StoreRebuilding,))
        self.node.sequence = 0
        held = list(self.node.held.values())
        if held:
            await self.node.commit(*held, restore=True)

    async def work(self):
        """Do so until nothing is left to do."""
        for _ in range(10):
            renewal = await self.renew()
            if renewal.state == "emptied":
                await self.write_back()
            elif renewal.overdue:
                await self.evict(renewal.overdue)
            else:
                return
        raise AssertionError(renewal)

    async def evict(self, overdue):
        for dead in overdue:
            done = False
            while not done:
                self.node.evictions += 1
                eviction = await self.node.store.evict(
                    *(0, self.node.incarnation, self.node.evictions, dead),
                    *(LEASE, RENEWAL, 1),
                )
                losses = eviction.losses
                self.told += [(one.group, one.member.id) for one in losses]
                done = eviction.done


async def two_processes(lab):
    """Two in one room, and each in one of its own."""
    one, two = Process(await lab.node()), Process(await lab.node())
    for process, group, id in (
        *((one, "room", "a"), (two, "room", "b"), (two, "room", "c")),
        *((one, "alone", "d"), (two, "other", "e")),
    ):
        await process.join(group, id)
    return one, two


def lose(lab, key):
    with lab.server.client() as client:
        assert client.delete(f"{lab.prefix}:groups:{key}"), key
        if key == "node:node0":
            # The places of its channel, which the layer forgets in time.
            for place in client.keys(f"{lab.prefix}:group:*"):
                client.zrem(place, "specific.node0!channel")


async def die(lab, *processes):
    for process in processes:
        await lab.disconnect(process.node)
        await aeventually(lambda: not lab.is_connected(process.node))
        process.dead = set(process.node.held)
        process.node.held.clear()


async def others_come(lab, *survivors):
    """Others come, or go on; all is told, and the rooms can be used."""
    new = Process(await arrive(lab))
    for _ in range(3):
        for process in (*survivors, new):
            await process.work()
    await lab.rebuilt()
    held = {one for process in survivors for one in process.node.held}
    for group in ("room", "alone", "other"):
        ids = {id for name, id in held if name == group}
        assert await lab.store.count(group) == len(ids)
        assert await lab.store.users(group) == {f"user-{id}" for id in ids}
        answer = await new.node.join(group, member("z", "user-z"))
        assert answer.outcome == ("joined" if ids else "created")
        assert (answer.count, answer.user_count) == (len(ids) + 1, len(ids) + 1)
        await new.work()
    assert await lab.store.group_count() == 3
    told = [one for process in (new, *survivors) for one in process.told]
    assert len(told) == len(set(told))
    assert nothing_of_the_dead(lab, {one.node.id for one in (*survivors, new)})
    return set(told)


async def arrive(lab):
    nodes = len(lab.nodes)

    async def node():
        del lab.nodes[nodes:]
        return await lab.node()

    return await aeventually(node, ignoring=(StoreRebuilding,))


def nothing_of_the_dead(lab, living):
    kept = [
        key.removeprefix(f"{lab.prefix}:groups:")
        for key in lab.keys()
        if fnmatch(key, "*:node[0-9]") and key.rpartition(":")[2] not in living
    ]
    assert kept == []
    return True


def unknown(key, dead):
    """Return the memberships of which only a key knew."""
    what = UNKNOWN.get(key, ())
    return {one for one in dead if one in what or one[0] in what}


@keys
@in_redis
async def test_all_die_before_it_is_noticed(lab, key):
    one, two = await two_processes(lab)
    lose(lab, key)
    await die(lab, one, two)
    told = await others_come(lab)
    assert told == (one.dead | two.dead) - unknown(key, one.dead)


@keys
@in_redis
async def test_one_dies_before_it_is_noticed(lab, key):
    one, two = await two_processes(lab)
    lose(lab, key)
    await die(lab, one)
    told = await others_come(lab, two)
    assert told == one.dead - unknown(key, one.dead)


@keys
@in_redis
async def test_the_other_dies_before_it_is_noticed(lab, key):
    one, two = await two_processes(lab)
    lose(lab, key)
    await die(lab, two)
    assert await others_come(lab, one) == two.dead


@keys
@in_redis
async def test_all_die_when_one_has_written_back(lab, key):
    """What the other had was wiped before."""
    one, two = await two_processes(lab)
    lose(lab, key)
    await one.work()
    await die(lab, one, two)
    told = await others_come(lab)
    assert told in (one.dead, one.dead | two.dead)


@keys
@in_redis
async def test_all_die_when_all_have_written_back(lab, key):
    one, two = await two_processes(lab)
    lose(lab, key)
    await one.work()
    await two.work()
    await one.work()
    await die(lab, one, two)
    assert await others_come(lab) == one.dead | two.dead


@keys
@in_redis
async def test_all_die_when_it_was_noticed(lab, key):
    """Before anything is wiped; or nothing has to be."""
    one, two = await two_processes(lab)
    lose(lab, key)
    state = (await one.renew()).state
    await die(lab, one, two)
    told = await others_come(lab)
    assert told == (set() if state == "emptied" else one.dead | two.dead)

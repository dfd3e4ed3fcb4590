"""Watching, and comparing the books: what verify() finds, mends and leaves alone."""

from collections import Counter

import msgpack
import pytest

from channels_groups import names
from channels_groups.stores import verify
from channels_groups.stores.base import Holdings, Join, StoreRebuilding

from .lab import member
from .test_contract import KINDS, every_store, server_stores, unsealed_core

ANN, BOB, CAT = (member(id, user=f"user-{id}") for id in "abc")
on_core = pytest.mark.parametrize("kind", ["core"], indirect=True)
on_redis = pytest.mark.parametrize("kind", KINDS[1:3], indirect=True)


async def verify_all(store, mend=False):
    """Return all that disagrees, and how many entries were compared."""
    found, checked, cursor = [], 0, None
    while True:
        findings, cursor = await store.verify(cursor, mend)
        found += findings.disagreements
        checked += findings.checked
        if cursor is None:
            return found, checked


def sentences(found):
    return sorted({one.what for one in found})


async def check_mended(store, expected):
    """What disagrees is said in these words, and is mended when that is asked for."""
    found, _ = await verify_all(store)
    for words in expected:
        assert any(words in what for what in sentences(found)), sentences(found)
    assert (await verify_all(store))[0] == found, "nothing is mended unasked"
    await verify_all(store, mend=True)
    assert (await verify_all(store))[0] == []


async def check_harm(lab, command, expected):
    """What a command of Redis does to the keys is found and mended."""
    prefix = f"{lab.prefix}:groups:"
    words = [word.format(p=prefix).encode("latin-1") for word in command.split(" ")]
    with lab.server.client() as client:
        client.execute_command(*words)
    await check_mended(lab.store, expected)


@pytest.fixture
async def full(lab):
    """A store with two processes, a group of both and one of each."""
    one, two = await lab.node(), await lab.node()
    joins = [Join("room", ANN, told=True), Join("a:b", ANN), Join("room", BOB)]
    await one.commit(*joins)
    await two.commit(Join("room", CAT), Join("c:d", CAT))
    return one, two


@every_store
async def test_watchers_are_named_by_renewals_until_they_end(lab):
    node = await lab.node()
    assert list((await node.renew()).watchers) == []
    await lab.store.watch("specific.one!a", 60)
    await lab.store.watch("specific.two!b", 60)
    renewal = await node.renew()
    assert sorted(renewal.watchers) == ["specific.one!a", "specific.two!b"]
    await lab.store.watch("specific.one!a", 0)
    assert list((await node.renew()).watchers) == ["specific.two!b"]
    await lab.store.watch("specific.two!b", 0)
    assert list((await node.renew()).watchers) == []


@on_redis
async def test_a_watcher_that_died_leaves_no_key(lab):
    await lab.store.watch("specific.one!a", 60)
    await lab.store.watch("specific.two!b", 5)
    with lab.server.client() as client:
        key = f"{lab.prefix}:groups:watchers"
        assert 5 < client.ttl(key) <= 60
    await lab.store.watch("specific.one!a", 0)
    await lab.store.watch("specific.two!b", 0)


@every_store
async def test_right_books_agree(lab, full):
    found, checked = await verify_all(lab.store)
    assert found == []
    assert checked >= 3
    assert await verify_all(lab.store, mend=True) == (found, checked)


@every_store
async def test_a_partly_evicted_process_is_no_disagreement(lab, full):
    one, two = full
    await lab.expire(two)
    await one.evict(two, limit=1)
    assert (await verify_all(lab.store))[0] == []
    await one.evict_all(two)
    two.held.clear()
    assert (await verify_all(lab.store))[0] == []


#: What is done to the keys, and what verify() says of it.
HARM = {
    "index too high": ("zincrby {p}index 5 room", ["index counts 8"]),
    "index too low": ("zincrby {p}index -1 room", ["index counts 2"]),
    "not in the index": ("zrem {p}index room", ["index counts 0"]),
    "in the index alone": ("zadd {p}index 3 nobody", ["index counts 3"]),
    "a user too many": ("hset {p}users:room ghost 1", ["(4 are listed, 3"]),
    "a user twice": ("hincrby {p}users:room user-a 1", ["users are counted"]),
    "no users": ("del {p}users:room", ["(0 are listed, 3"]),
    "told too high": ("hset {p}nodes:room node0 9", ["counts 9 of its 2 members"]),
    "told below none": ("hset {p}nodes:room node0 -1", ["counts -1 of its 2"]),
    "no members": ("del {p}members:room:node1", ["has no members", "index counts 3"]),
    "not listed": ("hdel {p}node:node0 room", ["does not list it as its own"]),
    "not counted": ("hdel {p}nodes:room node1", ["nothing counts", "index counts 3"]),
    "no nodes": ("del {p}nodes:room", ["nothing counts", "index counts 3"]),
    "a size": ("hset {p}sizes node0 7", ["counts 7 memberships", "have 3"]),
    "stray users": ("hset {p}users:nobody ghost 1", ["left over"]),
    "told of nobody": ("zadd {p}told 5 nobody", ["left over"]),
    "stray members": ("hset {p}members:no:body:gone x :rest", ["nothing counts"]),
    "a stray answer": ("hset {p}answer:gone sequence 1", ["left over"]),
    "groups of nobody": ("hset {p}node:gone room \x90", ["without a lease"]),
    "a user's no more": ("hdel {p}user:user-a 1:aroom", ["not found by its user"]),
    "a user's elsewhere": ("hset {p}user:user-a 1:aroom node1", ["not found", "left"]),
    "no places": ("del {p}user:user-b", ["not found by its user"]),
    "stray places": ("hset {p}user:ghost 1:aroom node0", ["left over"]),
    "nothing taken": ("sadd {p}taken:gone 1:aroom", ["left over"]),
}

#: The same while somebody lingers, with (connection "a" in "room") in "due".
HARM_OF_LINGERING = {
    "no end": ("zrem {p}due 1:aroom", ["without an end"]),
    "no way back": ("del {p}lingering:room", ["could not come back"]),
    "neither": ("del {p}lingering:room {p}due", ["without an end"]),
    "no user's": ("hdel {p}user:user-a 1:aroom", ["not found by its user"]),
    "gone already": ("zadd {p}leases 1 ~", ["gone before their end"]),
    "no lease": ("zrem {p}leases ~", ["without a lease"]),
    "a stray end": ("zadd {p}due 5 1:xroom", ["left over"]),
    "a stray way": ("hset {p}lingering:other ghost \x91\x92\xa1x\xa1y", ["left over"]),
    "a size": ("hset {p}sizes ~ 7", ["counts 7 memberships", "have 1"]),
}


@on_core
@pytest.mark.parametrize("harm", HARM)
async def test_harm_is_found_and_mended(lab, full, harm):
    command, expected = HARM[harm]
    before = books(lab)
    await check_harm(lab, command, expected)
    if harm == "no members":
        # What only the process itself knows is given back by its next renewal.
        state = (
            await full[1].renew(holdings=Holdings(1, 2, {"room": (1, CAT.user_id)}))
        ).state
        assert state == "emptied"
        await write_back(lab, full)
    elif harm == "groups of nobody":
        with lab.server.client() as client:
            assert client.zscore(f"{lab.prefix}:groups:leases", "gone") == 0
        assert (await full[0].evict(Gone, limit=9)).done
    elif harm == "a stray answer":
        key = f"{lab.prefix}:groups:answer:gone"
        with lab.server.client() as client:
            assert 0 < client.ttl(key) <= 600
            client.delete(key)
    assert {**books(lab), "told": None} == {**before, "told": None}
    assert (await verify_all(lab.store))[0] == []


@on_core
@pytest.mark.parametrize("harm", HARM_OF_LINGERING)
async def test_harm_of_who_lingers_is_found_and_mended(lab, full, harm):
    command, expected = HARM_OF_LINGERING[harm]
    one, two = full
    await one.leave("room", ANN, True, grace=60)
    assert (await verify_all(lab.store))[0] == []
    await check_harm(lab, command, expected)
    if expected == ["without an end"]:
        [loss] = (await two.end_graces()).losses
        assert loss.member == ANN
    else:
        assert await lab.store.count("room") == 3
        back = member("new", ANN.user_id)
        assert (await two.join("room", back, resume=())).outcome == "resumed"
    assert (await verify_all(lab.store))[0] == []


class Gone:
    id = "gone"


def books(lab):
    """Return what the keys say, but not what wants to be told."""
    with lab.server.client(decode_responses=False) as client:
        prefix = f"{lab.prefix}:groups:"
        hashes = [
            *("sizes", "users:room", "users:a:b", "users:c:d", "members:room:node0"),
            *("members:room:node1", "members:a:b:node0", "members:c:d:node1"),
            *("user:user-a", "user:user-b", "user:user-c"),
        ]
        said = {key: client.hgetall(prefix + key) for key in hashes}
        said["index"] = client.zrange(f"{prefix}index", 0, -1, withscores=True)
        for node in ("node0", "node1"):
            said[node] = sorted(client.hkeys(f"{prefix}node:{node}"))
        return said


async def write_back(lab, nodes):
    """Let all nodes write back what they hold, as their writers do."""
    for node in nodes:
        await node.renew()
        held = list(node.held.values())
        while True:
            try:
                await node.register()
                break
            except StoreRebuilding:
                continue
        with pytest.raises(StoreRebuilding):
            await lab.store.verify(None)
        await node.commit(*held, restore=True)
    await lab.rebuilt()


@server_stores  # In memory the lease is the node itself.
async def test_members_without_a_lease_are_given_to_eviction(lab, full):
    one, two = full
    lab.lose_lease(two)
    found, _ = await verify_all(lab.store, mend=True)
    assert "A process without a lease has members." in sentences(found)
    lost = [loss for batch in await one.evict_all(two) for loss in batch.losses]
    assert sorted((one.group, one.member.id) for one in lost) == [
        ("c:d", "c"),
        ("room", "c"),
    ]
    two.held.clear()
    assert (await verify_all(lab.store))[0] == []


@unsealed_core
async def test_the_layers_own_groups_are_compared_on_core(lab, full):
    own = f"{lab.prefix}:group:{names.own_name('room')}"
    with lab.server.client() as client:
        client.zadd(own, {"specific.dead!1": 1})
        before = client.zrange(own, 0, -1)
        client.zadd(f"{lab.prefix}:group:room", {"specific.foreign!1": 1})
    found, _ = await verify_all(lab.store)
    assert sentences(found) == ["A channel of no process is in the layer's group."]
    await verify_all(lab.store, mend=True)
    assert (await verify_all(lab.store))[0] == []
    with lab.server.client() as client:
        assert client.zrange(own, 0, -1) == [
            one for one in before if one != "specific.dead!1"
        ]
        assert client.zrange(f"{lab.prefix}:group:room", 0, -1) == [
            "specific.foreign!1"
        ], "other code's entries are none of ours"
        client.delete(own, f"{lab.prefix}:group:room")
    found, _ = await verify_all(lab.store, mend=True)
    assert sentences(found) == [
        "A process with members in it is not in the layer's group."
    ]
    assert (await verify_all(lab.store))[0] == []


@on_redis
async def test_what_is_large_is_compared_and_mended_in_pages(lab, full, monkeypatch):
    for name in ("LIMIT", "SUBJECTS", "PAGE"):
        monkeypatch.setattr(verify, name, 2)
    assert (await verify_all(lab.store))[0] == []
    before, prefix = books(lab), f"{lab.prefix}:groups:"
    with lab.server.client() as client:
        client.hset(f"{prefix}users:room", "ghost", 1)
        client.hset(f"{prefix}users:room", "user-a", 5)
        client.hdel(f"{prefix}users:room", "user-b")
        client.hset(f"{prefix}sizes", "node0", 7)
        client.hset(f"{prefix}node:node0", "nobody", b"\x90")
        client.delete(f"{prefix}user:user-b")
    said = sentences((await verify_all(lab.store))[0])
    assert said == [
        "A member is not found by its user.",
        "A process counts 7 memberships of its own, its groups have 3.",
        "It is listed for a process that has no members in it.",
        "Its users are counted wrongly (3 are listed, 3 are there).",
    ]
    assert sentences((await verify_all(lab.store, mend=True))[0]) == said
    assert (await verify_all(lab.store))[0] == []
    assert books(lab) == before


@pytest.mark.parametrize("kind", ["core", "core-sealed"], indirect=True)
async def test_what_leads_to_many_is_compared_and_mended_in_pages(
    lab, full, monkeypatch
):
    prefix, own = f"{lab.prefix}:groups:", names.own_name("room")
    with lab.server.client(decode_responses=False) as client:
        keys = client.keys(f"{prefix}user*")
        [ann] = [key for key in keys if client.hexists(key, "1:aroom")]
        entered = client.zrange(f"{lab.prefix}:group:{own}", 0, -1)
        keys, places = set(lab.keys()), client.hgetall(ann)
        one_lingers = msgpack.packb([["x", "node0"]])
        for n in range(500):
            # A user without a member, one with, who lingers nowhere, who is nobody.
            client.hset(f"{prefix}user:ghost ü", f"1:aroom {n}", "node0")
            client.hset(ann, f"1:xroom {n}", "node0")
            client.hset(f"{prefix}lingering:ro:om", b"\xff%d" % n, one_lingers)
            client.zadd(f"{lab.prefix}:group:{own}", {f"specific.dead{n}!1": 1})
        sizes, run = [], verify.Verification._run

        def commands():
            return sum(one["calls"] for one in client.info("commandstats").values())

        async def counted(self, shard, subjects, mend):
            before = commands()
            done = await run(self, shard, subjects, mend)
            sizes.append(commands() - before)
            return done

        monkeypatch.setattr(verify.Verification, "_run", counted)
        for name in ("LIMIT", "SUBJECTS"):
            monkeypatch.setattr(verify, name, 20)
        found, _ = await verify_all(lab.store, mend=True)
        assert Counter(one.what for one in found) == {
            "Something of it is left over.": 1500,
            "A channel of no process is in the layer's group.": 500,
        }
        assert max(sizes) < 500, "commands of one script"
        assert (set(lab.keys()), client.hgetall(ann)) == (keys, places)
        assert client.zrange(f"{lab.prefix}:group:{own}", 0, -1) == entered
    assert (await verify_all(lab.store))[0] == []


@unsealed_core
async def test_no_script_takes_long_to_mend_a_large_group(lab):
    node, size = await lab.node(), 5_000
    joins = [Join("room", member(f"m{n}", user=f"user-{n}")) for n in range(size)]
    for start in range(0, size, 200):
        await node.commit(*joins[start : start + 200])
    with lab.server.client() as client:
        key = f"{lab.prefix}:groups:users:room"
        client.delete(key)
        scripts = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        found, _ = await verify_all(lab.store, mend=True)
        assert f"(0 are listed, {size} are there)" in found[-1].what
        assert client.hlen(key) == size
        scripts = client.info("commandstats")["cmdstat_evalsha"]["calls"] - scripts
        assert scripts > size / verify.PAGE
    assert (await verify_all(lab.store))[0] == []


async def test_what_changes_while_it_is_summed_up_is_no_disagreement():
    async def steady(*readings):
        readings = iter(readings)

        async def read():
            return next(readings)

        return await verify._steady(read)

    assert await steady({b"a": 1, b"b": -1}, {b"a": 1, b"b": 1}, {}) == {}
    assert await steady({}) == {}
    found = await steady({b"a": 1, b"b": 2}, {b"a": 1}, {b"a": 1, b"b": 2})
    assert found == {b"a": 1}


@pytest.mark.parametrize("kind", ["memory"], indirect=True)
async def test_wrong_books_in_memory(lab, full):
    group = lab.store._groups["room"]
    group.count, group.users["ghost"] = 7, 1
    del lab.store._nodes["node0"].groups["room"]
    found, _ = await verify_all(lab.store)
    assert sentences(found) == [
        "A process has members in it and does not list it as its own.",
        "It counts 7 members and has 3.",
    ]
    assert {one.group for one in found} == {"room"}
    await verify_all(lab.store, mend=True)
    assert (await verify_all(lab.store))[0] == []
    assert lab.store._groups["room"].users == {f"user-{id}": 1 for id in "abc"}

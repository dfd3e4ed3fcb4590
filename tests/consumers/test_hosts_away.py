"""Several Redis hosts, one of which is away: what needs it waits, the rest goes on.

A room needs the host of its data and the hosts of the layer's two groups of it.
"""

import asyncio
from collections import Counter
from contextlib import ExitStack

import pytest
from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisSingleShardConnection
from redis.exceptions import RedisError

from channels_groups import names
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group, get_group_manager
from channels_groups.node import find_nodes
from channels_groups.places import Places
from channels_groups.relay import Relay
from channels_groups.stores.base import Incarnation

from ..helpers import layers
from ..helpers.eventually import aeventually
from ..helpers.proxy import TcpProxy
from ..helpers.server import RedisServer
from .chats import AsyncChat, cases
from .conftest import lasting_keys

on_both_layers = cases("core-async", "pubsub-async")
HOSTS = 3
#: What a message raises while a host is away, sent by us or by the layer alone.
AWAY = (StoreUnavailable, RedisError)


@pytest.fixture(scope="module")
def servers(redis_server):
    with ExitStack() as stack:
        servers = [stack.enter_context(RedisServer()) for _ in range(HOSTS)]
        for one in servers:
            layers.wait_until_seasoned(one)
        yield servers


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture
def wires(servers):
    with ExitStack() as stack:
        yield [stack.enter_context(TcpProxy(one.url)) for one in servers]


@pytest.fixture
def address(wires):
    return [wire.url for wire in wires]


@pytest.fixture
def layer_config():
    """Messages that nobody reads any more, as of a process that ends, soon expire."""
    return {"expiry": 2}


@pytest.fixture
async def away(layer, servers, prefix):
    """The number of the host that will be away: not the one that carries messages."""
    yield (await home_of(layer) + 1) % HOSTS
    for server in servers[1:]:
        await aeventually(lambda: lasting_keys(server, prefix), equals=[])


async def home_of(layer):
    """Return the host of all channels of this process, where they have one."""
    if not hasattr(layer, "consistent_hash"):
        return 0
    return layer.consistent_hash(layer.non_local_name(await layer.new_channel()))


def rooms(away, needed, count):
    """Return names of rooms that need the host which is away for something.

    needed: "nothing", "layer" (a group of the layer that a join waits for) or "data".
    """
    store, found = get_group_manager().store, []
    for number in range(10_000):
        name = f"room {number}"
        own, plain = names.own_name(name), names.plain_name(name)
        waited_for = plain if store.layer_confirms else own
        if store.shard(name) == away:
            needs = "data"
        elif store.host(waited_for) == away:
            needs = "layer"
        else:
            needs = "nothing" if away not in map(store.host, (own, plain)) else ""
        if needs == needed:
            found.append(name)
        if len(found) == count:
            break
    return found


def break_off(wire, how):
    if how == "refused":
        wire.refuse()
        wire.cut()
    else:
        wire.drop()


async def unavailable(call):
    with pytest.raises(StoreUnavailable):
        await call


def told_of(events, room):
    return [event.name for event in events if event.group.name == room]


@pytest.mark.parametrize("how", ["silent", "refused"])
@on_both_layers
async def test_what_does_not_need_the_host_goes_on(connect, events, wires, away, how):
    """Joins, moves and leaves; and what needs it is made up for, signals once."""
    here = rooms(away, "nothing", 12)
    mixed = rooms(away, "layer", 5)
    (there,) = rooms(away, "data", 1)
    clients = [await connect(AsyncChat) for _ in range(6)]
    stays, goes, moves, waits, walks, calls = clients
    await stays.set_group(mixed[0])
    await goes.set_group(mixed[1])
    await moves.set_group(mixed[2])
    await calls.set_group(there)
    break_off(wires[away], how)

    # Left where the layer cannot be told, so that all would wait behind it.
    await goes.set_group(None)
    await aeventually(
        lambda: told_of(events, mixed[1]),
        equals=["created", "join", "leave", "destroyed"],
    )
    refused = [asyncio.create_task(unavailable(waits.set_group(mixed[3])))]
    refused += [asyncio.create_task(unavailable(walks.join_group(there)))]
    for room in here:
        await goes.set_group(room)
        await moves.join_group(room)
    await moves.set_group(here[0])
    assert told_of(events, mixed[2])[-1] == "destroyed"
    await asyncio.gather(*refused)
    assert await walks.do(lambda consumer: consumer.joined_groups) == frozenset()
    for room in here[1:]:
        await moves.leave_group(room)
        assert await get_group(room).acount() == (room == here[-1])
    # In a group that is entered nobody needs the host that is away.
    await waits.set_group(mixed[0])
    assert await get_group(mixed[0]).acount() == 2
    await calls.set_group(None)
    await goes.set_group(mixed[0])

    wires[away].heal()
    for room in (*mixed, there):
        await aeventually(
            lambda: walks.join_group(room), ignoring=(StoreUnavailable,), timeout=20
        )
        await aeventually(
            lambda: get_group(room).acount(), equals=1 + 3 * (room == mixed[0])
        )
        await aeventually(lambda: hears(walks, room), ignoring=AWAY, timeout=20)
    for client in clients:
        await client.disconnect()
    await aeventually(lambda: not find_nodes("default"), timeout=20)
    check_once(events)


@on_both_layers
async def test_host_that_was_emptied_is_filled_by_all(connect, events, servers, away):
    """Killed and started without its data: it had a place of rooms of other hosts."""
    rooms_of_it = [rooms(away, needed, 1)[0] for needed in ("layer", "data", "nothing")]
    client, other = [await connect(AsyncChat) for _ in range(2)]
    for room in rooms_of_it:
        await client.join_group(room)
    servers[away].kill()
    await other.set_group(rooms_of_it[2])
    servers[away].restart(empty=True)
    for room in rooms_of_it:
        await aeventually(lambda: hears(client, room), ignoring=AWAY, timeout=20)
    await other.set_group(None)
    told = Counter((event.name, event.group.name) for event in events)
    assert told == Counter(
        {
            **{("created", room): 1 for room in rooms_of_it},
            **{("join", room): 1 for room in rooms_of_it},
            **{("join", rooms_of_it[2]): 2, ("leave", rooms_of_it[2]): 1},
        }
    )
    await client.disconnect()
    await other.disconnect()
    await aeventually(lambda: not find_nodes("default"), timeout=20)
    check_once(events)


@pytest.mark.parametrize("how", ["silent", "refused"])
@pytest.mark.parametrize("place", ["settle", "abandon"])
@on_both_layers
async def test_reborn_while_another_host_goes_away(
    connect, events, servers, wires, away, prefix, monkeypatch, place, how
):
    """A process that has lost its lease on one host takes a new identity there."""
    store = get_group_manager().store
    (mixed,) = rooms(away, "layer", 1)
    shard = store.shard(mixed)
    here = next(
        room for room in rooms(away, "nothing", 20) if store.shard(room) == shard
    )
    client, beside = await connect(AsyncChat), await connect(AsyncChat)
    for room in (mixed, here):
        await client.join_group(room)
    await beside.join_group(here)
    original = getattr(Places, place)

    async def breaks_off(places):
        if places._index == shard:
            break_off(wires[away], how)
        await original(places)

    monkeypatch.setattr(Places, place, breaks_off)
    with servers[shard].client() as server:
        await evict(client.consumer._node, shard, server, prefix)
    # In a room that does not need the host at once, else when it is back.
    await aeventually(lambda: joins(events, here), equals=4, timeout=20)
    monkeypatch.undo()
    assert await get_group(here).acount() == 2
    wires[away].heal()
    await aeventually(lambda: joins(events, mixed), equals=2, timeout=20)
    for room in (here, mixed):
        await aeventually(lambda: hears(client, room), ignoring=AWAY, timeout=20)
    assert await get_group(mixed).acount() == 1
    for one in (client, beside):
        await one.disconnect()
    await aeventually(lambda: not find_nodes("default"), timeout=20)
    assert joins(events, here) == 4 and told_of(events, here).count("leave") == 2
    assert joins(events, mixed) == 2 and told_of(events, mixed).count("leave") == 1


@cases("pubsub-async")
async def test_a_subscription_that_was_lost_is_made_again(
    layer, connect, events, servers, wires, away, prefix, monkeypatch
):
    """channels_redis.pubsub believes that it has made it."""
    (room,) = rooms(away, "nothing", 1)
    shard = get_group_manager().store.shard(room)
    client = await connect(AsyncChat)
    await client.join_group(room)
    lost, subscribe = [], RedisSingleShardConnection.subscribe

    async def lose(self, channel):
        if "__group__" in channel and not lost:
            lost.append(channel)
            self._subscribed_to.add(channel)
        else:
            await subscribe(self, channel)

    monkeypatch.setattr(RedisSingleShardConnection, "subscribe", lose)
    with servers[shard].client() as server:
        await evict(client.consumer._node, shard, server, prefix, losses=1)
    await aeventually(lambda: joins(events, room), equals=2, timeout=20)
    assert lost == [layer._get_group_channel_name(names.own_name(room))]
    await aeventually(lambda: hears(client, room), timeout=20)
    await client.disconnect()
    await aeventually(lambda: not find_nodes("default"), timeout=20)


@on_both_layers
async def test_ended_before_the_dead_were_taken_out(
    connect, events, servers, wires, away, prefix, monkeypatch
):
    """What a host could not be told is told at the end, if it is there again."""
    (mixed,) = rooms(away, "layer", 1)
    shard = get_group_manager().store.shard(mixed)
    client = await connect(AsyncChat)
    await client.join_group(mixed)

    async def fail(relay, entry):
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr("channels_groups.places.RETRY", 3600)
        patch.setattr(Relay, "discard", fail)
        with servers[shard].client() as server:
            await evict(client.consumer._node, shard, server, prefix, losses=1)
        await aeventually(lambda: joins(events, mixed), equals=2, timeout=20)
    await client.disconnect()
    await aeventually(lambda: not find_nodes("default"), timeout=20)


async def evict(node, shard, server, prefix, losses=3):
    """Evict a node from one shard, as another process does, which tells of it."""
    writer, other = node._shards[shard]._writer, Incarnation("other", "other!", "1")
    await node.store.register(shard, other, "", 10)
    async with writer.lease.no_renewal():
        id = writer.incarnation.id
        server.zadd(f"{prefix}:groups:leases", {id: 1}, xx=True)
        eviction = await node.store.evict(shard, other, 1, id, 10, 1, 100)
    assert eviction.done and len(eviction.losses) == losses
    await node.store.release(shard, other)


def joins(events, room):
    return told_of(events, room).count("join")


async def hears(client, room):
    """Return whether what is sent to a room, by us and by others, arrives."""
    while not client.output_queue.empty():
        await client.receive_from()
    await get_group(room).asend("ours")
    message = {"type": "chat.note", "text": "theirs"}
    await get_channel_layer().group_send(names.plain_name(room), message)
    try:
        await aeventually(lambda: client.output_queue.qsize() >= 2, timeout=1)
    except AssertionError:
        return False
    return {await client.receive_from() for _ in range(2)} == {"ours", "note theirs"}


def check_once(events):
    """Each life is created and destroyed, each membership joined and left, once."""
    by_room = {}
    for event in sorted(events, key=lambda event: event.revision):
        by_room.setdefault(event.group.name, []).append(event)
    for room, told in by_room.items():
        assert (told[0].name, told[-1].name) == ("created", "destroyed"), told
        kinds = Counter(event.name for event in told)
        assert kinds["created"] == kinds["destroyed"], told
        assert kinds["join"] == kinds["leave"], told
        inside = set()
        for event in told:
            if event.name == "join":
                assert event.connection.id not in inside
                inside.add(event.connection.id)
            elif event.name == "leave":
                inside.remove(event.connection.id)
        assert not inside

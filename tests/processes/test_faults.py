"""What is promised when things break, on real processes and a real server."""

import asyncio
import contextlib

import pytest

from tests.helpers.client import connect
from tests.helpers.cluster import Cluster
from tests.helpers.events import violations
from tests.helpers.eventually import aeventually
from tests.helpers.server import RedisServer
from tests.helpers.truth import nobody_is_deaf, quiet, settled

LEASE = 4
ROOMS = ["red", "green", "blue"]


@pytest.fixture(params=["core", "pubsub"])
def cluster(request, own_redis, tmp_path):
    env = {"GROUP_LEASE": str(LEASE)}
    with Cluster(own_redis.url, tmp_path, layer=request.param, env=env) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def visitors(nodes, each=4):
    """Connect some clients to every node, spread over the rooms."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for node in nodes:
            for number in range(each):
                room = ROOMS[number % len(ROOMS)]
                client = connect(node, room, f"{node.name}-{number}")
                clients.append(await stack.enter_async_context(client))
        yield clients


async def check(cluster, clients):
    """Everything is as it should be, and nobody is deaf."""
    await settled(cluster, clients)
    await nobody_is_deaf(clients)
    assert violations(cluster.events()) == []


async def leaves(cluster, reason):
    return [one for one in cluster.events() if one.get("reason") == reason]


async def test_killed_process(cluster):
    """Its members leave as lost, each once; emptied groups are destroyed."""
    one, two, three = cluster.start("daphne", "uvicorn", "daphne")
    async with visitors([one, two, three]) as clients:
        async with connect(three, "only here", "alone") as alone:
            await check(cluster, [*clients, alone])
            three.kill()
            gone = [client for client in clients if not client.is_open]
            await aeventually(lambda: not alone.is_open)
            await check(cluster, clients)
            lost = await leaves(cluster, "lost")
            assert len(lost) == 5, gone
            assert {one["group"] for one in lost} == {*ROOMS, "only here"}
    await quiet(cluster)


async def test_last_process_killed_and_another_comes(cluster):
    """The next process to take a connection signals what the dead one left."""
    (one,) = cluster.start("uvicorn")
    async with visitors([one]) as clients:
        await check(cluster, clients)
        one.kill()
        (two,) = cluster.start("daphne")
        async with connect(two, "elsewhere", "new") as new:
            await check(cluster, [new])
            assert len(await leaves(cluster, "lost")) == 4
    await quiet(cluster)


async def test_frozen_process(cluster):
    """It loses its lease, and joins again when it is back."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        two.freeze()
        await aeventually(lambda: len(_lost(cluster)) == 4, timeout=LEASE + 10)
        two.thaw()
        await check(cluster, clients)
    await quiet(cluster)


async def test_short_freeze_is_forgiven(cluster):
    """A process that is silent for less than its lease keeps its members."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        two.freeze()
        await asyncio.sleep(LEASE / 2)  # The silence itself is what is tested.
        two.thaw()
        await check(cluster, clients)
        assert _lost(cluster) == []
    await quiet(cluster)


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_told_to_stop(cluster, server):
    """Everybody leaves at once, as disconnected."""
    one, two = cluster.start("daphne", server)
    async with visitors([one, two], each=20) as clients:
        await check(cluster, clients)
        two.terminate()
        await aeventually(lambda: sum(client.is_open for client in clients) == 20)
        await check(cluster, clients)
        assert len(await leaves(cluster, "disconnected")) == 20
        assert _lost(cluster) == []
    await quiet(cluster)


async def test_flushed_store(cluster, own_redis):
    """Memberships are written back, and nobody hears of it."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        own_redis.flush()
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await quiet(cluster)


async def test_store_killed_and_empty_again(cluster, own_redis):
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        own_redis.kill()
        await asyncio.sleep(2)
        own_redis.restart(empty=True)
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await quiet(cluster)


async def test_store_away_for_longer_than_the_lease(cluster, own_redis):
    """Nobody evicts everybody; who left meanwhile has left."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        own_redis.pause()
        await clients[0].close()
        await asyncio.sleep(LEASE + 2)
        own_redis.resume()
        await check(cluster, clients)
        assert _lost(cluster) == []
    await quiet(cluster)


async def test_connections_to_the_store_killed(cluster, own_redis):
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        own_redis.kill_clients()
        await check(cluster, clients)
        assert _lost(cluster) == []
    await quiet(cluster)


async def test_process_cut_off(own_redis, proxy, tmp_path):
    """Behind a dead wire it is evicted; when it is healed it joins again."""
    env = {"GROUP_LEASE": str(LEASE)}
    with Cluster(own_redis.url, tmp_path, env=env) as cluster:
        (one,) = cluster.start("uvicorn")
        (two,) = cluster.start("uvicorn", redis_url=proxy.url)
        async with visitors([one, two]) as clients:
            await check(cluster, clients)
            proxy.drop()
            await aeventually(lambda: len(_lost(cluster)) == 4, timeout=LEASE + 10)
            proxy.heal()
            await check(cluster, clients)
        await quiet(cluster)


def _lost(cluster):
    return [one for one in cluster.events() if one.get("reason") == "lost"]


@pytest.mark.parametrize(
    "key", ["index", "leases", "epoch", "revision", "sizes", "channels", "nodes:red"]
)
async def test_deleted_key(cluster, own_redis, key):
    """What is missing in the store is noticed, and everything is written back."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        assert own_redis.client().delete(f"demo:groups:{key}") == 1
        await asyncio.sleep(1.5)  # A heartbeat.
        await check(cluster, clients)
        await clients[0].close()
        await clients[4].move("blue")
        await check(cluster, clients)
    await quiet(cluster)


async def test_store_back_with_old_data(own_redis_with_data, tmp_path):
    """A server that comes back with older data than it had is not believed."""
    env = {"GROUP_LEASE": str(LEASE)}
    with Cluster(own_redis_with_data.url, tmp_path, env=env) as cluster:
        one, two = cluster.start("daphne", "uvicorn")
        async with visitors([one, two]) as clients:
            await check(cluster, clients)
            own_redis_with_data.save()
            await clients[0].close()
            await clients[4].move("blue")
            async with visitors([two], each=2) as more:
                await check(cluster, [*clients, *more])
                own_redis_with_data.kill()
                own_redis_with_data.restart(empty=False)
                await check(cluster, [*clients, *more])
        await quiet(cluster)


@pytest.fixture
def own_redis_with_data(missing, tmp_path):
    directory = tmp_path / "redis"
    directory.mkdir()
    with RedisServer(directory=directory) as server:
        yield server

"""What is promised when the store breaks, loses its data or takes over another's."""

import asyncio

import pytest
import redis

from tests.helpers.client import connect
from tests.helpers.cluster import Cluster
from tests.helpers.eventually import aeventually, eventually
from tests.helpers.processes import ChildProcess
from tests.helpers.server import RedisServer

from .laboratory import (
    APPLICATION,
    ENV,
    LEASE,
    check,
    end,
    leaves,
    pause,
    visitors,
)

#: Seconds that the store does not answer: some leases.
AWAY = 30

#: Each sort of key that the library keeps.
KEYS = {
    "index": "index",
    "leases": "leases",
    "epoch": "epoch",
    "revision": "revision",
    "sizes": "sizes",
    "channels": "channels",
    "nodes of a group": "nodes:red",
    "users of a group": "users:red",
    "members of a group": "members:red:*",
    "groups of a node": "node:*",
    "answer to a node": "answer:*",
    "places of a user": "user:*",
    "revisions that were told": "told",
    "run of the server": "run",
}
#: They are written when they are needed next.
WRITTEN_LATER = {"told", "run", "revision"}


async def test_flushed(cluster, own_redis):
    """Memberships are written back, and nobody hears of it."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        own_redis.flush()
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await end(cluster, own_redis)


async def test_flushed_while_clients_move(cluster, own_redis):
    """What is under way is done once, before or after the writing back."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        moving = [asyncio.create_task(client.move("white")) for client in clients]
        own_redis.flush()
        await asyncio.gather(*moving)
        await check(cluster, clients)
        assert leaves(cluster, "lost") == []
    await end(cluster, own_redis)


@pytest.mark.parametrize("seconds", [0, 2, LEASE + 2])
async def test_restarted_empty(cluster, own_redis, seconds):
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        own_redis.kill()
        await pause(seconds)
        own_redis.restart(empty=True)
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await end(cluster, own_redis)


@pytest.mark.parametrize("seconds", [0, 2, LEASE + 2])
async def test_restarted_with_its_data(cluster, own_redis, seconds):
    """Nobody is taken for lost because the leases in it have run out."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        own_redis.save()
        own_redis.kill()
        await pause(seconds)
        own_redis.start()
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await end(cluster, own_redis)


async def test_restarted_with_old_data(cluster, own_redis):
    """A server that comes back with older data than it had is not believed."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        own_redis.save()
        await clients[0].close()
        await clients[4].move("blue")
        async with visitors([two], each=2) as more:
            await check(cluster, [*clients, *more])
            before = len(cluster.events())
            own_redis.kill()
            own_redis.start()
            await check(cluster, [*clients, *more])
            assert len(cluster.events()) == before
    await end(cluster, own_redis)


async def test_away_for_longer_than_the_lease(cluster, own_redis):
    """For 30 seconds nobody evicts everybody; who left meanwhile has left."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        own_redis.pause()
        await clients[0].close()
        await clients[4].vanish()
        await pause(AWAY)
        own_redis.resume()
        await check(cluster, clients)
        assert leaves(cluster, "lost") == []
    await end(cluster, own_redis)


async def test_connections_killed(cluster, own_redis):
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        own_redis.kill_clients()
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await end(cluster, own_redis)


@pytest.mark.parametrize("sort", KEYS)
async def test_deleted_key(cluster, own_redis, sort):
    """What is missing in the store is noticed, and everything is written back."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        with own_redis.client() as client:
            key = client.keys(f"demo:groups:{KEYS[sort]}")[0]
            assert client.delete(key) == 1
        await pause(1.5)  # A heartbeat.
        await check(cluster, clients)
        with own_redis.client() as client:
            if KEYS[sort] not in WRITTEN_LATER:
                await aeventually(lambda: client.exists(key), timeout=20)
        await check(cluster, clients)
        await clients[0].close()
        await clients[4].move("blue")
        await check(cluster, clients)
        assert leaves(cluster, "lost") == []
    await end(cluster, own_redis)


async def test_no_membership_ends_by_age(own_redis, tmp_path):
    """The layer's group_expiry deafens nobody."""
    env = {
        **ENV,
        "DJANGO_SETTINGS_MODULE": "tests.helpers.settings",
        "GROUP_EXPIRY": "3",
    }
    with Cluster(own_redis.url, tmp_path, env=env, application=APPLICATION) as cluster:
        one, two = cluster.start("daphne", "uvicorn")
        async with visitors([one, two]) as clients:
            await pause(8)
            await check(cluster, clients)
        await end(cluster, own_redis)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("layer", ["core", "pubsub"])
async def test_failover_to_a_replica(layer, sentinel, tmp_path):
    """Sentinel puts a replica in the server's place; nobody is lost."""
    env = {
        **ENV,
        "DJANGO_SETTINGS_MODULE": "tests.helpers.settings",
        "SENTINEL_PORT": str(sentinel.port),
    }
    with Cluster(
        sentinel.main.url, tmp_path, layer=layer, env=env, application=APPLICATION
    ) as cluster:
        one, two = cluster.start("daphne", "uvicorn")
        async with visitors([one, two]) as clients:
            await check(cluster, clients)
            before = len(cluster.events())
            sentinel.main.kill()
            # It closes its connections when it is.
            broken = (redis.ConnectionError,)
            await aeventually(sentinel.is_promoted, timeout=60, ignoring=broken)
            await check(cluster, clients)
            assert len(cluster.events()) == before
            async with connect(one, "red", "later") as later:
                await check(cluster, [*clients, later])
        await end(cluster, sentinel.replica)


class Sentinel:
    """A server called main, its replica, and the sentinel that watches them."""

    def __init__(self, directory, port):
        self.main = RedisServer()
        self.replica = None
        self.port = port
        self.directory = directory
        self.process = None

    def __enter__(self):
        self.main.start()
        main = ("127.0.0.1", str(self.main.port))
        self.replica = RedisServer(options={"replicaof": main})
        self.replica.start()
        eventually(self.is_linked, timeout=30)
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor main {' '.join(main)} 1\n"
            "sentinel down-after-milliseconds main 1000\n"
            "sentinel failover-timeout main 10000\n"
        )
        command = [self.main.binary, config, "--sentinel"]
        self.process = ChildProcess(command, self.directory / "sentinel.log")
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.replica.close()
        self.main.close()

    def is_linked(self):
        """Whether the replica has all data."""
        with self.replica.client() as client:
            return client.info("replication")["master_link_status"] == "up"

    def is_promoted(self):
        """Whether the replica is the main server now."""
        with self.replica.client() as client:
            return client.info("replication")["role"] == "master"


@pytest.fixture
def sentinel(tmp_path, unused_tcp_port, redis_server):
    directory = tmp_path / "sentinel"
    directory.mkdir()
    with Sentinel(directory, unused_tcp_port) as sentinel:
        yield sentinel

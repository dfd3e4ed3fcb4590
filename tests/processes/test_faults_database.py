"""What is promised holds on a database too: PostgreSQL, and channels_postgres as layer.

That layer does not outlive its connections (1.1.4), so where they are broken it is
channels_redis core, with the memberships in PostgreSQL.
"""

import asyncio
import itertools
import os
import subprocess
import sys

import pytest

from tests.helpers.client import connect
from tests.helpers.cluster import PROJECT, Cluster
from tests.helpers.database_servers import DatabaseServerMissing, PostgreSQLServer
from tests.helpers.eventually import aeventually
from tests.helpers.proxy import TcpProxy
from tests.helpers.truth import quiet
from tests.storm.world import unexpected

from .laboratory import (
    APPLICATION,
    ENV,
    LEASE,
    NOISE,
    all_lost,
    check,
    leaves,
    left_in,
    now,
    pause,
    remains,
    visitors,
)

TABLES = ("book", "node", "group", "part", "membership")
#: What channels_postgres leaves behind: its clean-up, which sleeps for minutes, and
#: connections.
HARMLESS = ["delete_expired_messages", "was deleted while still open"]

numbers = itertools.count()


@pytest.fixture(scope="module")
def server(missing):
    """A server with a database that has the tables, as a template for others."""
    try:
        server = PostgreSQLServer()
    except DatabaseServerMissing as error:
        missing(str(error))
    with server:
        command = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
        env = {**os.environ, **settings_of(server, "groups", server.port)}
        apps = ["channels_groups_database", "channels_postgres"]
        for app in apps:
            subprocess.run([*command, app], cwd=PROJECT, env=env, check=True)
        yield server


@pytest.fixture
def database(server):
    """The name of a database for one test."""
    name = f"test{next(numbers)}"
    with server.client(dbname="postgres") as client:
        client.execute(f"CREATE DATABASE {name} TEMPLATE groups")
    return name


def settings_of(server, name, layer_port=None):
    """Return the environment of processes that use a database."""
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.helpers.settings_database",
        "DATABASE_NAME": name,
        "DATABASE_PORT": str(server.port),
    }
    return {**env, "LAYER_PORT": str(layer_port)} if layer_port else env


@pytest.fixture
def on_postgres(server, database, tmp_path):
    """A cluster with nothing but PostgreSQL."""
    env = {**ENV, **settings_of(server, database, server.port)}
    with Cluster(
        "", tmp_path, layer="memory", env=env, application=APPLICATION
    ) as cluster:
        yield cluster


@pytest.fixture
def beside_redis(server, database, own_redis, tmp_path):
    """A cluster on channels_redis core that keeps its memberships in PostgreSQL."""
    env = {**ENV, **settings_of(server, database)}
    with Cluster(
        own_redis.url, tmp_path, layer="core", env=env, application=APPLICATION
    ) as cluster:
        yield cluster


async def end(cluster, server, database, redis=None):
    """All is over: every membership has ended, and nothing is left anywhere."""
    await quiet(cluster)

    async def left():
        left = [*await remains(cluster), *rows_in(server, database)]
        return [*left, *left_in(redis)] if redis else left

    await aeventually(left, equals=[], timeout=20)
    for node in cluster.nodes:
        complaints = unexpected(node.log)
        assert [
            one for one in complaints if not any(word in one for word in HARMLESS)
        ] == []


def rows_in(server, database):
    """Return what is left, but for the book, and for what an evicted node may ask."""
    queries = [
        "SELECT id FROM channels_groups_database_node WHERE evicted_until = 0",
        "SELECT name FROM channels_groups_database_group",
        "SELECT group_id::text FROM channels_groups_database_part",
        "SELECT connection FROM channels_groups_database_membership",
        "SELECT channel FROM channels_postgres_groupchannel",
    ]
    with server.client(dbname=database) as client:
        return [row for query in queries for row in client.execute(query).fetchall()]


async def test_killed_process(on_postgres, server, database):
    """Its connection is seen to break: three seconds, not the lease."""
    one, two, three = on_postgres.start("daphne", "uvicorn", "daphne")
    async with visitors([one, two, three]) as clients:
        async with connect(three, "only here", "alone") as alone:
            await check(on_postgres, [*clients, alone])
            killed = now()
            three.kill()
            await all_lost(on_postgres, 5, within=3, since=killed)
            await check(on_postgres, clients)
    await end(on_postgres, server, database)


async def test_frozen_process(on_postgres, server, database):
    """It loses its lease, and joins again when it is back."""
    one, two = on_postgres.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(on_postgres, clients)
        frozen = now()
        two.freeze()
        await all_lost(on_postgres, 4, within=LEASE + 1, since=frozen)
        two.thaw()
        await check(on_postgres, clients)
    await end(on_postgres, server, database)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_told_to_stop(on_postgres, server, database, kind):
    """Everybody leaves at once, as disconnected."""
    one, two = on_postgres.start("uvicorn", kind)
    async with visitors([one, two], each=20) as clients:
        await check(on_postgres, clients)
        told = now()
        await asyncio.to_thread(two.terminate)
        await aeventually(lambda: sum(client.is_open for client in clients) == 20)
        await check(on_postgres, clients)
        left = [event["time"] for event in leaves(on_postgres, "disconnected")]
        assert len(left) == 20
        assert max(left) - told < 1 + NOISE
        assert leaves(on_postgres, "lost") == []
    await end(on_postgres, server, database)


async def test_emptied(on_postgres, server, database):
    """Memberships are written back, and nobody hears of it."""
    one, two = on_postgres.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(on_postgres, clients)
        before = len(on_postgres.events())
        tables = ", ".join(f'"channels_groups_database_{one}"' for one in TABLES)
        with server.client(dbname=database) as client:
            client.execute(f"TRUNCATE {tables}")
        await check(on_postgres, clients)
        assert len(on_postgres.events()) == before
    await end(on_postgres, server, database)


async def test_restarted(beside_redis, server, database, own_redis):
    """Nobody is taken for lost because the leases have run out meanwhile."""
    one, two = beside_redis.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(beside_redis, clients)
        before = len(beside_redis.events())
        for seconds in (0, LEASE + 2):
            server.stop()
            await pause(seconds)
            await asyncio.to_thread(server.start)
            await check(beside_redis, clients)
        assert len(beside_redis.events()) == before
        server.kill_clients()
        await check(beside_redis, clients)
        assert len(beside_redis.events()) == before
    await end(beside_redis, server, database, own_redis)


async def test_dead_wire(server, database, own_redis, tmp_path):
    """Half-open: nothing arrives, nothing is closed. It is evicted, and comes back."""
    with TcpProxy(f"postgres://127.0.0.1:{server.port}") as proxy:
        env = {**ENV, **settings_of(server, database)}
        with Cluster(
            own_redis.url, tmp_path, layer="core", env=env, application=APPLICATION
        ) as cluster:
            cluster.start("daphne")
            cluster.start("uvicorn", env={"DATABASE_PORT": str(proxy.port)})
            async with visitors(cluster.nodes) as clients:
                await check(cluster, clients)
                cut = now()
                proxy.drop()
                await all_lost(cluster, 4, within=LEASE + 1, since=cut)
                proxy.heal()
                await check(cluster, clients)
                assert [client.is_open for client in clients] == [True] * 8
            await end(cluster, server, database, own_redis)

"""What is promised when one process is cut off from the store."""

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.eventually import aeventually

from .laboratory import (
    APPLICATION,
    ENV,
    LEASE,
    all_lost,
    check,
    end,
    leaves,
    now,
    pause,
    visitors,
)


@pytest.fixture(params=["core", "pubsub"])
def cut_off(request, own_redis, proxy, tmp_path):
    """A cluster with a process that reaches the store, and one through the proxy."""
    with Cluster(
        own_redis.url,
        tmp_path,
        layer=request.param,
        env=ENV,
        application=APPLICATION,
    ) as cluster:
        cluster.start("daphne")
        cluster.start("uvicorn", redis_url=proxy.url)
        yield cluster


async def test_dead_wire(cut_off, own_redis, proxy):
    """Half-open: nothing arrives, nothing is closed. It is evicted, and comes back."""
    async with visitors(cut_off.nodes) as clients:
        await check(cut_off, clients)
        cut = now()
        proxy.drop()
        await all_lost(cut_off, 4, within=LEASE + 1, since=cut)
        proxy.heal()
        await check(cut_off, clients)
        assert [client.is_open for client in clients] == [True] * 8
    await end(cut_off, own_redis)


async def test_dead_wire_for_a_moment(cut_off, own_redis, proxy):
    async with visitors(cut_off.nodes) as clients:
        await check(cut_off, clients)
        before = len(cut_off.events())
        proxy.drop()
        await pause(LEASE / 2)
        proxy.heal()
        await check(cut_off, clients)
        assert len(cut_off.events()) == before
    await end(cut_off, own_redis)


async def test_clients_leave_behind_a_dead_wire(cut_off, own_redis, proxy):
    """They leave once: evicted with their process, or by it when it is back."""
    async with visitors(cut_off.nodes) as clients:
        await check(cut_off, clients)
        proxy.drop()
        await clients[4].close()
        await clients[5].vanish()
        await aeventually(lambda: len(leaves(cut_off, "lost")) == 4, timeout=30)
        await clients[6].close()
        proxy.heal()
        await check(cut_off, clients)
    await end(cut_off, own_redis)


async def test_connections_reset(cut_off, own_redis, proxy):
    async with visitors(cut_off.nodes) as clients:
        await check(cut_off, clients)
        before = len(cut_off.events())
        proxy.cut()
        await check(cut_off, clients)
        assert len(cut_off.events()) == before
    await end(cut_off, own_redis)


async def test_connections_refused(cut_off, own_redis, proxy):
    """Its connection was seen to break: it is evicted within three seconds."""
    async with visitors(cut_off.nodes) as clients:
        await check(cut_off, clients)
        refused = now()
        proxy.refuse()
        proxy.cut()
        await all_lost(cut_off, 4, within=3, since=refused)
        proxy.heal()
        await check(cut_off, clients)
    await end(cut_off, own_redis)


async def test_slow_wire(cut_off, own_redis, proxy):
    """Everything takes a while, and nothing is wrong."""
    async with visitors(cut_off.nodes) as clients:
        proxy.delay(100)
        await check(cut_off, clients)
        for client in clients[4:]:
            await client.move("white")
        await check(cut_off, clients)
        proxy.heal()
        assert leaves(cut_off, "lost") == []
        await check(cut_off, clients)
    await end(cut_off, own_redis)

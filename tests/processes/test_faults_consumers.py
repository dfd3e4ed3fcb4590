"""Leaving always happens: exceptions in consumers, clients that vanish."""

import asyncio
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.client import Client, connect
from tests.helpers.deaf import DeafClient
from tests.storm.visitors import flit

from .laboratory import check, end, visitors

SERVERS = pytest.mark.parametrize("server", ["daphne", "uvicorn"])
WHERE = ["receive", "group", "nobody", "disconnect"]


@SERVERS
@pytest.mark.parametrize("where", WHERE)
async def test_exception_in_a_handler(cluster, own_redis, server, where):
    """In receive(), a group handler, disconnect(), or where there is no handler."""
    (node,) = cluster.start(server)
    async with visitors([node]) as clients:
        await check(cluster, clients)
        await clients[0].send(type="fail", **{"in": where})
        await clients[0].wait_closed()
        await check(cluster, clients)
    await end(cluster, own_redis)


@SERVERS
@pytest.mark.parametrize("where", ["connect", "joined"])
async def test_exception_in_connect(cluster, own_redis, server, where):
    """Before it has joined, and after."""
    (node,) = cluster.start(server)
    async with visitors([node]) as clients:
        query = urlencode({"name": "bad", "fail": where})
        url = node.ws_url("red", "").partition("?")[0]
        with suppress(InvalidStatus):  # 500 if it was not accepted yet.
            bad = await Client(f"{url}?{query}", room="red", name="bad").open()
            await bad.wait_closed()
        await check(cluster, clients)
    await end(cluster, own_redis)


@pytest.mark.parametrize(
    "server, closed", [("daphne", (4013, "")), ("uvicorn", (1013, "taken over"))]
)
async def test_who_is_to_try_again_later_is_told_so(cluster, server, closed):
    """daphne sends no reserved code and no reason."""
    (node,) = cluster.start(server)
    async with connect(node, "red", "elsewhere") as client:
        await client.send(type="fail", **{"in": "elsewhere"})
        assert await client.wait_closed() == closed


@SERVERS
async def test_clients_that_are_gone_at_once(cluster, own_redis, server):
    """Whatever they interrupted, nothing is left of them."""
    (node,) = cluster.start(server)
    async with visitors([node]) as clients:
        for burst in range(5):
            url = node.ws_url("red", f"flit {burst}")
            await asyncio.gather(*(flit(url, n / 20_000) for n in range(40)))
        await check(cluster, clients)
    await end(cluster, own_redis)


@SERVERS
async def test_clients_that_vanish(cluster, own_redis, server):
    (node,) = cluster.start(server)
    async with visitors([node]) as clients:
        async with visitors([node], each=20) as others:
            await asyncio.gather(*(client.vanish() for client in others))
        await check(cluster, clients)
    await end(cluster, own_redis)


@SERVERS
async def test_clients_that_vanish_while_the_store_is_away(cluster, own_redis, server):
    """They have left when it is back, those too that were just entering."""
    (node,) = cluster.start(server)
    async with visitors([node]) as clients:
        async with visitors([node], each=10) as others:
            own_redis.pause()
            url = node.ws_url("red", "flit")
            await asyncio.gather(*(flit(url, n / 20_000) for n in range(40)))
            moves = [one.send(type="move", room="white") for one in others]
            await asyncio.gather(*moves)
            await asyncio.gather(*(client.vanish() for client in others))
            await asyncio.sleep(1)
            own_redis.resume()
        await check(cluster, clients)
    await end(cluster, own_redis)


@SERVERS
async def test_clients_that_never_read(cluster, own_redis, server):
    """They are members like others, as long as they are there."""
    (node,) = cluster.start(server)
    async with connect(node, "red", "ann") as ann:
        with DeafClient(node.ws_url("red", "deaf")):
            await ann.receive("join", name="deaf")
            assert (await ann.who())["count"] == 2
        await ann.receive("leave", name="deaf")
        await check(cluster, [ann])
    await end(cluster, own_redis)

"""Clients that read nothing, and clients that move as fast as they can."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.helpers.client import connect
from tests.helpers.cluster import Cluster
from tests.helpers.deaf import DeafClient
from tests.helpers.flood import Listener, flood, memory, read_again

from .laboratory import APPLICATION, ENV, check, end, visitors

#: python -m tests.guarantees slow takes 100 and 10,000.
DEAF, MESSAGES, OUTBOX = 20, 1800, 100
#: Characters of a message: all together are more than a kernel keeps for a socket.
SIZE = 3500
#: Megabytes that a process may take for all of its slow clients; daphne takes more.
BOUND = 50


@pytest.fixture
def crowd(own_redis, tmp_path):
    """A cluster whose clients may fall behind a bit, and that is not slowed down."""
    env = {**ENV, "GROUP_OUTBOX": str(OUTBOX), "PYTHONASYNCIODEBUG": ""}
    with Cluster(own_redis.url, tmp_path, env=env, application=APPLICATION) as cluster:
        yield cluster


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
async def test_clients_that_stop_reading(crowd, own_redis, server):
    """The others miss nothing. Where the server tells who is slow, they are closed.

    daphne takes whatever it is given and keeps it in its memory.
    """
    asyncio.get_running_loop().set_debug(False)  # Too slow for so much to hear.
    (node,) = crowd.start(server)
    async with visitors([node], each=1) as [first], AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(Listener(node, "loud", f"listener-{n}"))
            for n in range(3)
        ]
        deaf = [DeafClient(node.ws_url("loud", f"deaf-{n}")) for n in range(DEAF)]
        for client in deaf:
            await asyncio.to_thread(client.open)
            stack.callback(client.close)
        before = memory(node)
        reading = asyncio.create_task(read_again(node, "loud", 3, deaf[:5]))
        await flood(listeners, MESSAGES, SIZE)
        grown = memory(node) - before
        print(f"{server}: {grown:.0f} MB more")
        for listener in listeners:
            assert listener.heard == list(range(MESSAGES))
        if server == "uvicorn":
            assert grown < BOUND
            assert await reading == [1013] * 5
        else:
            assert node.room("loud")["count"] == len(listeners) + DEAF
            reading.cancel()
        for client in deaf:
            client.close()
        await check(crowd, [first, *listeners])
    await end(crowd, own_redis)


async def test_a_client_that_moves_as_fast_as_it_can(crowd, own_redis):
    """Through a thousand rooms, without waiting; the others do not notice."""
    one, two = crowd.start("daphne", "uvicorn")
    async with visitors([one, two], each=2) as clients:
        await check(crowd, clients)
        async with connect(one, "room 0", "restless") as restless:
            for number in range(1000):
                await restless.send(type="move", room=f"room {number}")
                if number % 50 == 0:
                    counts = [(await client.who())["count"] for client in clients]
                    assert counts == [2] * 4
            await restless.receive("welcome", room="room 999", timeout=120)
            restless.room = "room 999"
            await check(crowd, [*clients, restless])
        await check(crowd, clients)
        assert not any(client.all_of("join") for client in clients[2:])
    await end(crowd, own_redis)

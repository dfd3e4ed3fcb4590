"""What is promised when processes die, freeze, block or are told to stop."""

import asyncio
import contextlib
import os
import sys

import pytest

from tests.helpers.client import Client, connect
from tests.helpers.cluster import PROJECT
from tests.helpers.eventually import aeventually
from tests.helpers.processes import ChildProcess
from tests.helpers.truth import nobody_is_deaf, settled
from tests.storm.world import ask

from .laboratory import (
    LEASE,
    NOISE,
    ROOMS,
    all_lost,
    check,
    end,
    leaves,
    now,
    pause,
    visitors,
)


async def test_killed_process(cluster, own_redis):
    """Its members leave as lost, each once; emptied groups are destroyed."""
    one, two, three = cluster.start("daphne", "uvicorn", "daphne")
    async with visitors([one, two, three]) as clients:
        async with connect(three, "only here", "alone") as alone:
            await check(cluster, [*clients, alone])
            killed = now()
            three.kill()
            await all_lost(cluster, 5, within=3, since=killed)
            await check(cluster, clients)
            lost = leaves(cluster, "lost")
            assert {one["group"] for one in lost} == {*ROOMS, "only here"}
    await end(cluster, own_redis)


async def test_two_killed_processes(cluster, own_redis):
    """The last one left tells of both."""
    one, two, three = cluster.start("daphne", "uvicorn", "uvicorn")
    async with visitors([one, two, three]) as clients:
        await check(cluster, clients)
        killed = now()
        two.kill()
        three.kill()
        await all_lost(cluster, 8, within=3, since=killed)
        await check(cluster, clients)
        assert {event["pid"] for event in leaves(cluster, "lost")} == {one.pid}
    await end(cluster, own_redis)


async def test_last_process_killed_and_another_comes(cluster, own_redis):
    """The next process to take a connection signals what the dead one left."""
    (one,) = cluster.start("uvicorn")
    async with visitors([one]) as clients:
        await check(cluster, clients)
        one.kill()
        (two,) = cluster.start("daphne")
        came = now()
        async with connect(two, "elsewhere", "new") as new:
            await all_lost(cluster, 4, within=LEASE, since=came)
            await check(cluster, [new])
    await end(cluster, own_redis)


async def test_killed_process_and_nobody_to_notice(cluster, own_redis):
    """A process without connections tells nothing, and counts rightly all the same."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([two]) as clients:
        await check(cluster, clients)
        two.kill()
        await aeventually(lambda: one.api("rooms/")["rooms"], equals=[])
        assert leaves(cluster, "lost") == []
    came = now()
    async with connect(one, "red", "first") as first:
        await all_lost(cluster, 4, within=3, since=came)
        await check(cluster, [first])
    await end(cluster, own_redis)


async def test_killed_while_clients_join_and_leave(cluster):
    """Whatever was under way, the survivors' counts are right."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two], each=10) as clients:
        movers = [asyncio.create_task(move_on(client)) for client in clients[10:]]
        await pause(0.5)
        two.kill()
        await asyncio.gather(*movers, return_exceptions=True)
        await aeventually(lambda: sum(client.is_open for client in clients) == 10)
        await check_counts(cluster, clients)


async def move_on(client):
    while client.is_open:
        for room in ROOMS:
            await client.move(room)


async def check_counts(cluster, clients):
    """Do as check() without the logs: a signal dies with a process, see point 3."""
    await settled(cluster, clients)
    await nobody_is_deaf(clients)


async def test_frozen_process(cluster, own_redis):
    """It loses its lease, and joins again when it is back."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        frozen = now()
        two.freeze()
        await all_lost(cluster, 4, within=LEASE + 1, since=frozen)
        thawed = now()
        two.thaw()
        await check(cluster, clients)
        joins = [one for one in cluster.events() if one["event"] == "join"]
        back = [event["time"] for event in joins if event["time"] > thawed]
        assert len(back) == 4
        assert max(back) - thawed < 2 + NOISE
    await end(cluster, own_redis)


async def test_short_freeze_is_forgiven(cluster, own_redis):
    """A process that is silent for less than its lease keeps its members."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        two.freeze()
        await pause(LEASE / 2)
        two.thaw()
        await check(cluster, clients)
        assert leaves(cluster, "lost") == []
    await end(cluster, own_redis)


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_blocked_loop(cluster, own_redis, server):
    """A loop that is busy for longer than the lease is as good as frozen."""
    one, two = cluster.start("uvicorn", server)
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        blocked = now()
        blocking = asyncio.create_task(ask(two, f"block/?seconds={LEASE + 2}"))
        await all_lost(cluster, 4, within=LEASE + 1, since=blocked)
        await blocking
        await check(cluster, clients)
        assert [client.is_open for client in clients] == [True] * 8
    await end(cluster, own_redis, harmless=["Executing <"])


async def test_frozen_while_the_store_is_emptied(cluster, own_redis):
    """It writes its members back when it is back, as nobody had missed them."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        before = len(cluster.events())
        two.freeze()
        own_redis.flush()
        await pause(LEASE + 1)
        two.thaw()
        await check(cluster, clients)
        assert len(cluster.events()) == before
    await end(cluster, own_redis)


async def test_clients_that_go_while_their_process_is_frozen(cluster, own_redis):
    """They were lost, and do not come back with their process."""
    one, two = cluster.start("daphne", "uvicorn")
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        frozen = now()
        two.freeze()
        await all_lost(cluster, 4, within=LEASE + 1, since=frozen)
        await clients[4].vanish()
        await clients[5].vanish()
        two.thaw()
        await check(cluster, clients)
    await end(cluster, own_redis)


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_told_to_stop(cluster, own_redis, server):
    """Everybody leaves at once, as disconnected."""
    one, two = cluster.start("daphne", server)
    async with visitors([one, two], each=40) as clients:
        await check(cluster, clients)
        told = now()
        await asyncio.to_thread(two.terminate)
        await aeventually(lambda: sum(client.is_open for client in clients) == 40)
        await check(cluster, clients)
        left = [event["time"] for event in leaves(cluster, "disconnected")]
        assert len(left) == 40
        assert max(left) - told < 1 + NOISE
        assert leaves(cluster, "lost") == []
    await end(cluster, own_redis)


async def test_told_to_stop_while_consumers_take_long_to_end(cluster, own_redis):
    """The leaves do not wait until uvicorn has ended the consumers."""
    (one,) = cluster.start("uvicorn")
    async with contextlib.AsyncExitStack() as stack:
        for number, room in enumerate([*ROOMS, *ROOMS]):
            url = one.ws_url(room, f"slow-{number}") + f"&slow={2 + 2 * NOISE}"
            slow = Client(url, room=room, name=f"slow-{number}")
            await stack.enter_async_context(slow)
        told = now()
        await asyncio.to_thread(one.terminate)
        assert now() - told > 2 + 2 * NOISE
    await end(cluster, own_redis)
    left = [event["time"] for event in leaves(cluster, "disconnected")]
    assert len(left) == 6
    assert max(left) - told < 1 + NOISE


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_told_to_stop_amid_handshakes(cluster, own_redis, proxy, server):
    """Whoever is within connect() then joins and leaves once, or does not join."""
    (one,) = cluster.start("uvicorn")
    (two,) = cluster.start(server, redis_url=proxy.url)
    async with visitors([one, two]) as clients:
        await check(cluster, clients)
        proxy.delay(50)  # With more, five seconds may not do to leave.
        coming = []
        for number in range(40):  # At the end some are at each step of connect().
            comer = connect(two, f"room {number % 7}", f"comer-{number}")
            coming.append(asyncio.create_task(comer.open()))
            await pause(0.02)
        assert sum(task.done() for task in coming) < 40
        await asyncio.to_thread(two.terminate)
        await asyncio.wait(coming)
        assert any(task.exception() for task in coming)
        await aeventually(lambda: sum(client.is_open for client in clients) == 4)
        await check(cluster, clients)
        assert leaves(cluster, "lost") == []
    # channels_redis core's, of a process that ended as it took a message.
    await end(cluster, own_redis, excused=["$inflight"])


async def test_all_told_to_stop(cluster, own_redis):
    """Nobody is left to tell of it but those who stop; nothing is left."""
    nodes = cluster.start("daphne", "uvicorn", "daphne")
    async with visitors(nodes) as clients:
        await check(cluster, clients)
        await asyncio.gather(*(asyncio.to_thread(node.terminate) for node in nodes))
        await aeventually(lambda: not any(client.is_open for client in clients))
    await end(cluster, own_redis)
    assert len(leaves(cluster, "disconnected")) == 12


async def test_rolling_deploy(cluster, own_redis):
    """Processes are replaced one after the other, and clients come back."""
    nodes = cluster.start("daphne", "uvicorn", "daphne")
    async with visitors(nodes) as clients:
        await check(cluster, clients)
        for node in nodes:
            await asyncio.to_thread(node.terminate)
            await asyncio.to_thread(node.restart)
            async with visitors([node]) as comers:
                await check(cluster, [*clients, *comers])
        assert leaves(cluster, "lost") == []
    await end(cluster, own_redis)


async def test_runserver_and_ctrl_c(cluster, own_redis, tmp_path, unused_tcp_port):
    """Django's own server says goodbye too."""
    (one,) = cluster.start("uvicorn")
    address = f"127.0.0.1:{unused_tcp_port}"
    env = {
        **os.environ,
        "CHANNEL_LAYER": cluster.layer,
        "REDIS_URL": own_redis.url,
        "DEMO_PROCESS_NAME": "runserver",
    }
    command = [sys.executable, "manage.py", "runserver", "--noreload", address]
    log = tmp_path / "log"
    runserver = ChildProcess(command, log, cwd=PROJECT, env=env)
    try:
        url = f"ws://{address}/ws/rooms/red/?name="
        async with visitors([one]) as clients:
            ann = await aeventually(
                lambda: open_client(url + "ann", runserver, log), timeout=30
            )
            await settled(cluster, [*clients, ann])  # It writes no log of events.
            await nobody_is_deaf([*clients, ann])
            told = now()
            await asyncio.to_thread(runserver.interrupt)
            red = [client for client in clients if client.room == "red"]
            await red[0].receive("leave", id=ann.id, timeout=3)
            assert now() - told < 1 + NOISE
            await ann.wait_closed()
            await check_counts(cluster, clients)
    finally:
        if runserver.running:
            runserver.kill()


async def open_client(url, server, log):
    """Return a client that is connected, or None as long as nobody listens."""
    assert server.running, log.read_text()
    try:
        return await Client(url, room="red", name="ann").open()
    except OSError:
        return None

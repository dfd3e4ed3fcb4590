"""Reading where there are no connections: views, commands, tasks."""

import asyncio
import threading

from asgiref.sync import async_to_sync

from channels_groups.manager import get_group, get_group_manager

from ..helpers.eventually import aeventually
from .chats import cases

on_core = cases("core-async")


def clients(server):
    with server.client() as client:
        return [one for one in client.client_list() if one["cmd"] != "client|list"]


@on_core
async def test_many_reads_of_a_loop_use_one_connection(server):
    await get_group("room").acount()
    before = clients(server)
    for _ in range(10):
        assert await get_group("room").acount() == 0
    assert len(clients(server)) == len(before)


@on_core
async def test_a_read_goes_on_when_its_connection_was_lost(server):
    await get_group("room").acount()
    server.kill_clients()
    for _ in range(3):
        assert await get_group("room").acount() == 0


@on_core
async def test_reads_go_on_with_the_layers_new_pools(layer, server):
    await get_group("room").acount()
    before = len(clients(server))
    await layer.close_pools()
    assert await get_group("room").acount() == 0
    assert len(clients(server)) <= before


@on_core
async def test_reads_at_once_do_not_wait_for_one_another(server):
    groups = [get_group(f"room-{number}") for number in range(10)]
    counts = await asyncio.gather(*(group.acount() for group in groups))
    assert counts == [0] * 10


@on_core
async def test_a_read_that_is_cancelled_gives_nobody_its_answer(chat, connect):
    """Each in a loop of its own, so that none of them has a node."""
    await connect(chat, "room")

    async def read():
        group, empty = get_group("room"), get_group("empty")
        assert await group.acount() == 1
        for turns in range(8):
            reading = asyncio.create_task(group.acount())
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            assert await empty.acount() == 0

    await asyncio.to_thread(asyncio.run, read())


@on_core
async def test_loops_that_are_over_leave_no_connection(server):
    """As of sync code, which has one for each question."""
    store, before = get_group_manager().store, len(clients(server))
    for _ in range(5):
        thread = threading.Thread(target=async_to_sync(get_group("room").acount))
        thread.start()
        await asyncio.to_thread(thread.join)
    await aeventually(lambda: len(clients(server)), equals=before)
    assert sum(loop.is_closed() for loop in store._borrowed) <= 1

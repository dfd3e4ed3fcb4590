"""What the demo tells of all rooms: its lobby, its API and its log of the signals."""

import asyncio
import json
import urllib.error

import pytest

from tests.helpers.client import Client, connect, connect_lobby
from tests.helpers.cluster import Cluster
from tests.helpers.eventually import aeventually

from .conftest import lets_in


async def test_the_api_agrees_everywhere(nodes, room):
    async with (
        connect(nodes[0], room, "same") as first,
        connect(nodes[1], room, "same") as second,
    ):
        for node in nodes:
            answer = await asyncio.to_thread(node.room, room)
            members = answer.pop("members")
            assert answer == {"name": room, "count": 2, "users": 1}
            processes = {member["id"]: member["process"] for member in members}
            assert processes == {first.id: nodes[0].name, second.id: nodes[1].name}
            rooms = (await asyncio.to_thread(node.api, "rooms/"))["rooms"]
            assert {"name": room, "count": 2, "users": 1} in rooms
    empty = {"name": room, "count": 0, "users": 0, "members": []}
    for node in nodes:
        await aeventually(lambda: asyncio.to_thread(node.room, room), equals=empty)


async def test_the_api_refuses_impossible_names(nodes):
    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(nodes[0].room, "x" * 1001)
    with refused.value as answer:
        assert (answer.code, json.load(answer)["error"]) == (400, "invalid")


async def test_the_lobby_follows(nodes, room):
    async with connect_lobby(nodes[1]) as lobby:
        first = await lobby.receive("rooms")
        assert room not in names_of(first)
        async with connect(nodes[0], room, "first"):
            await listed(lobby, room, 1)
            async with connect(nodes[1], room, "second"):
                await listed(lobby, room, 2)
            await listed(lobby, room, 1)
        await listed(lobby, room, None)
        assert not any("lobby" in name for name in names_of(lobby.received[-1]))


async def test_the_lobby_is_told_ten_times_a_second_at_most(nodes, room):
    async with connect_lobby(nodes[0]) as lobby, connect(nodes[1], room, "x") as client:
        await listed(lobby, room, 1)
        loop = asyncio.get_running_loop()
        start, before = loop.time(), len(lobby.received)
        while loop.time() - start < 1.5:
            await client.move(f"{room}, next door")
            await client.move(room)
        await client.move(f"{room}, at last")
        await listed(lobby, f"{room}, at last", 1)
        pushes, seconds = len(lobby.received) - before, loop.time() - start
        assert 2 <= pushes <= 10 * seconds + 1


async def test_a_store_out_of_reach(own_redis, tmp_path):
    with Cluster(own_redis.url, tmp_path) as cluster:
        (node,) = cluster.start("daphne")
        await aeventually(lambda: lets_in(node))
        async with connect(node, "house", "first") as first:
            own_redis.stop()
            await first.send(type="move", room="shed")
            await first.receive("error", error="unavailable")
            second = Client(node.ws_url("house", "second"), welcomed=False)
            await second.open()
            await second.receive("error", error="unavailable")
            assert await second.wait_closed() == (4013, "")
            with pytest.raises(urllib.error.HTTPError) as refused:
                await asyncio.to_thread(node.api, "rooms/")
            with refused.value as answer:
                assert (answer.code, json.load(answer)["error"]) == (503, "unavailable")
            own_redis.start()
            await aeventually(lambda: lets_in(node))
            await first.move("shed")


@pytest.mark.parametrize("layer", ["core", "pubsub"])
async def test_the_lobby_outlasts_its_redis(own_redis, tmp_path, layer):
    with Cluster(own_redis.url, tmp_path, layer=layer) as cluster:
        (node,) = cluster.start("daphne")
        await aeventually(lambda: lets_in(node))
        async with connect_lobby(node) as lobby, connect(node, "house", "first"):
            await listed(lobby, "house", 1)
            own_redis.restart(empty=True)
            async with connect_lobby(node) as later:
                await listed(later, "house", 1)
            await aeventually(lambda: lets_in(node))
            async with connect(node, "shed", "second"):
                await listed(lobby, "shed", 1)
            await listed(lobby, "shed", None)
            assert lobby.all_of("rooms")[-1]["rooms"] == [{"name": "house", "count": 1}]


async def test_the_event_log(demo, nodes, room):
    async with connect(nodes[0], room, "first") as first:
        pass

    def lines():
        return [line for line in demo.events() if line["group"] == room]

    await aeventually(lambda: len(lines()) == 4)
    created, join, leave, destroyed = lines()
    common = {"group", "event", "count", "user_count", "revision", "pid", "time"}
    assert set(created) == set(destroyed) == common
    assert set(join) == common | {"id"}
    assert set(leave) == common | {"id", "reason"}
    assert [line["event"] for line in lines()] == [
        *("created", "join", "leave", "destroyed")
    ]
    assert join["id"] == leave["id"] == first.id
    assert leave["reason"] == "disconnected"
    assert (join["count"], leave["count"], leave["user_count"]) == (1, 0, 0)
    assert created["pid"] == nodes[0].pid


def names_of(message):
    return [room["name"] for room in message["rooms"]]


async def listed(lobby, room, count):
    """Wait until the lobby last heard that many of the room; None: not of it."""

    def last():
        if not lobby.received:
            return None
        rooms = lobby.received[-1]["rooms"]
        return {each["name"]: each["count"] for each in rooms}.get(room)

    await aeventually(last, equals=count)

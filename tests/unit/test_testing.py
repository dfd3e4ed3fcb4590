"""What channels_groups.testing gives to users' tests, in memory."""

import asyncio
import importlib
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer

from channels_groups import node, shutdown
from channels_groups.exceptions import GroupFull
from channels_groups.manager import get_group, get_group_manager
from channels_groups.testing import (
    ClockedStore,
    FakeClock,
    await_for_count,
    capture_group_events,
    isolated_groups,
    simulated_process,
    wait_for_count,
)

from ..consumers.chats import AsyncChat, AsyncToldChat, Client, SyncChat
from ..helpers.eventually import aeventually

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def groups():
    async with isolated_groups() as groups:
        yield groups
    assert not node._nodes
    assert not shutdown._nodes


@pytest.fixture
async def open_client():
    clients = []

    async def connect(consumer, room, process=None, **scope):
        client = Client(consumer, room=room, **scope)
        if process:
            client._run = process.serve(client._run)
            client.application = client._run
        clients.append(client)
        assert await client.connect() == (True, None)
        return client

    yield connect
    for client in clients:
        await client.end()


async def test_groups_are_isolated_whatever_the_settings_say(settings, open_client):
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer"},
        "other": {"BACKEND": "nowhere.Layer"},
    }
    settings.CHANNELS_GROUPS = {"default": {"STORE": "nowhere.Store", "LEASE": 7}}
    async with isolated_groups(MAX_MEMBERS=1):
        assert type(get_channel_layer("other")).__name__ == "InMemoryChannelLayer"
        for alias, lease in (("default", 7), ("other", 10)):
            manager = get_group_manager(alias)
            assert isinstance(manager.store, ClockedStore)
            assert (manager.settings.lease, manager.settings.max_members) == (lease, 1)
        await open_client(AsyncChat, "room")
        with pytest.raises(GroupFull):
            client = Client(AsyncChat, room=None)
            await client.connect()
            try:
                await client.set_group("room")
            finally:
                await client.end()
    assert settings.CHANNELS_GROUPS["default"]["STORE"] == "nowhere.Store"
    assert isolated_groups.current is None


def test_groups_are_isolated_in_a_sync_test():
    with isolated_groups(LEASE=5):
        assert get_group_manager().settings.lease == 5
        assert get_group("room").count() == 0
        wait_for_count(get_group("room"), 0)
    assert get_group_manager().settings.lease != 5


async def test_what_a_sync_test_leaves_open_is_no_part_of_the_next(open_client):
    groups = isolated_groups()
    groups.__enter__()
    await open_client(AsyncChat, "room")
    left = node.find_nodes("default")
    groups.__exit__(None, None, None)
    assert not shutdown._nodes
    async with isolated_groups():
        await open_client(AsyncChat, "room")
        assert node.find_nodes("default") != left
        assert await get_group("room").acount() == 1


def test_a_given_layer_is_used():
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with isolated_groups(channel_layers=layers, LEASE=3):
        assert not isinstance(get_group_manager().store, ClockedStore)
        assert get_group_manager().settings.lease == 3


async def test_events_are_waited_for(groups, open_client):
    with capture_group_events() as events:
        waiting = asyncio.create_task(events.await_for("join", group="room"))
        ann = await open_client(AsyncChat, "room", user_id="ann")
        event = await waiting
        assert event.connection.user_id == "ann"
        assert await events.await_for("join", count=1) is event, "it has come before"
        await ann.set_group(None)
        left = await events.await_for("leave", reason="left", group=get_group("room"))
        assert left.count == 0
        with pytest.raises(
            AssertionError, match="no .*'lost'.* within 0.05 s"
        ) as error:
            await events.await_for("leave", reason="lost", timeout=0.05)
        assert "destroyed" in str(error.value), "it tells what came instead"


def test_events_of_other_threads_are_waited_for_in_a_sync_test():
    async def live():
        async with isolated_groups():
            client = Client(SyncChat, room="room")
            await client.connect()
            await client.end()

    with capture_group_events() as events:
        thread = threading.Thread(target=lambda: asyncio.run(live()))
        thread.start()
        assert events.wait_for("destroyed", group="room").name == "destroyed"
        thread.join()


async def test_a_count_is_waited_for(groups, open_client):
    group = get_group("room")
    waiting = asyncio.create_task(await_for_count(group, 2))
    await open_client(AsyncChat, "room")
    with pytest.raises(AssertionError, match="'room' has 1 members, not 2, within"):
        await await_for_count(group, 2, timeout=0.05)
    await open_client(AsyncChat, "room")
    await waiting
    await sync_to_async(wait_for_count)(group, 2)


@pytest.mark.parametrize("chat", [AsyncChat, SyncChat])
async def test_a_second_process_is_another_one(groups, open_client, chat):
    async with simulated_process() as other:
        ann = await open_client(chat, "room", user_id="ann")
        bob = await open_client(AsyncToldChat, "room", process=other, user_id="bob")
        assert len(await get_group_manager().store.nodes()) == 2
        group = get_group("room")
        scopes = {one.user_id: one.scope async for one in group}
        assert scopes["ann"] is not None
        assert scopes["bob"] is None, "it is somewhere else"
        await group.asend("hello")
        assert await ann.receive_from() == await bob.receive_from() == "hello"
        await ann.set_group("elsewhere")
        await aeventually(lambda: [one.user_id for _, one in bob.left], equals=["ann"])
        with capture_group_events() as events:
            await get_group_manager().aclose_all(local=True)
            await ann.close_code()
            await events.await_for("leave", group="elsewhere")
        assert await group.acount() == 1
    assert await group.acount() == 0


async def test_a_process_that_stops_in_order_leaves(groups, open_client):
    with capture_group_events() as events:
        async with simulated_process() as other:
            await open_client(AsyncChat, "room", process=other)
        assert [event.name for event in events][-2:] == ["leave", "destroyed"]
        assert events[-2].reason == "disconnected"


@pytest.mark.parametrize("chat", [AsyncChat, SyncChat])
async def test_a_killed_process_is_noticed_when_its_lease_is_over(
    groups, open_client, chat
):
    async with simulated_process() as other:
        await open_client(AsyncChat, "room", user_id="ann")
        await open_client(chat, "room", process=other, user_id="bob")
        await open_client(chat, "bobs", process=other, user_id="bob")
        with capture_group_events() as events:
            await other.kill()
            assert events == [], "nobody has left"
            assert await get_group("room").acount() == 2
            groups.clock.advance(11)
            assert await get_group("room").acount() == 1
            lost = await events.await_for("leave", group="room", reason="lost")
            await events.await_for("destroyed", group="bobs")
        assert (lost.connection.user_id, lost.count) == ("bob", 1)
        assert len([event for event in events if event.name == "leave"]) == 2
        states = await get_group_manager().store.nodes()
        assert [state.memberships for state in states] == [1]


async def test_time_does_the_living_no_harm(groups, open_client):
    async with simulated_process() as other:
        await open_client(AsyncChat, "room")
        await open_client(AsyncChat, "room", process=other)
        with capture_group_events() as events:
            for _ in range(3):
                groups.clock.advance(60)
                for one in await get_group_manager().store.nodes():
                    assert one.remaining > 5
            assert await get_group("room").acount() == 2
            assert events == []


async def test_grace_is_over_when_the_clock_says_so(open_client):
    async with isolated_groups(GRACE=5) as groups:
        await open_client(AsyncChat, "room")
        bob = await open_client(AsyncChat, "room", user_id="bob")
        with capture_group_events("leave") as events:
            await bob.disconnect()
            groups.clock.advance(4)
            assert await get_group("room").acount() == 2
            groups.clock.advance(2)
            assert await get_group("room").acount() == 1
            left = await events.await_for("leave", reason="expired")
        assert (left.connection.user_id, left.count) == ("bob", 1)


async def test_an_error_of_the_application_comes_out_of_the_process():
    async def application(scope, receive, send):
        raise ZeroDivisionError

    async with simulated_process() as other:
        with pytest.raises(ZeroDivisionError):
            await other.serve(application)({}, None, None)


def test_a_clock_goes_on_when_it_is_told_to():
    clock = FakeClock()
    before = clock()
    clock.advance(2.5)
    assert clock() == before + 2.5


TESTS = textwrap.dedent("""
    from channels_groups.manager import get_group, get_group_manager
    from channels_groups.testing import ClockedStore


    def test_the_fixtures(isolated_groups, group_events):
        assert isinstance(get_group_manager().store, ClockedStore)
        isolated_groups.clock.advance(1)
        assert get_group("room").count() == 0
        assert group_events == []
    """)


def test_the_fixtures_are_found(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = " + str(PROJECT))
    (tmp_path / "test_fixtures.py").write_text(TESTS)
    options = ["-p", "channels_groups.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--ds", "testproject.settings"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_library_needs_no_pytest():
    code = "import sys, channels_groups.testing; sys.exit('pytest' in sys.modules)"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "testproject.settings"}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment)
    assert done.returncode == 0
    assert importlib.import_module("channels_groups.pytest_plugin")

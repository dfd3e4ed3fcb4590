"""A process that is told to stop: who leaves, when, and in which order."""

import asyncio
import contextlib
import gc
import signal

import pytest
import uvicorn
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase

from channels_groups.connection import LocalConnection
from channels_groups.manager import get_group
from channels_groups.node import find_nodes
from channels_groups.signals import group_leave

from ..helpers.eventually import aeventually
from .chats import AsyncToldChat, async_only, cases, in_memory

in_memory_async = cases("memory-async")


@contextlib.contextmanager
def uvicorn_here():
    """Give uvicorn the signals of this process, as it takes them when it serves."""
    server = uvicorn.Server(uvicorn.Config(app=None))
    with server.capture_signals():
        yield server
        server._captured_signals.clear()  # It would raise them again.


class Reactor(AsyncioSelectorReactor):
    """Twisted's in this process' loop, as daphne runs it."""

    should_exit = False

    def stop(self):
        self.should_exit = True


@contextlib.contextmanager
def daphne_here():
    """Give Twisted the signals of this process, as it takes them when it runs."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Of a new process.
    reactor = Reactor(asyncio.get_running_loop())
    reactor._installSignalHandlers = True
    ReactorBase._signalsFactory(reactor).install()  # Not what is for child processes.
    try:
        yield reactor
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        reactor.disconnectAll()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("server_here", [uvicorn_here, daphne_here])
@in_memory
async def test_members_leave_before_the_server_ends_them(
    told_chat, connect, events, number, server_here
):
    """They hear nothing of it, and may go on until their sockets are closed."""
    with server_here() as server:
        ann = await connect(told_chat, "room")
        bob = await connect(told_chat, "room")
        signal.raise_signal(number)
        await aeventually(lambda: server.should_exit)
        assert events[-1].name == "destroyed"
        leaves = [one.reason for one in events if one.name == "leave"]
        assert leaves == ["disconnected", "disconnected"]
        assert await ann.do(lambda consumer: consumer.group_name) == "room"
        await ann.set_group("other")
        assert await get_group("other").acount() == 1
        await ann.disconnect()
        await bob.disconnect()
        names = [one.name for one in events]
        assert names[-4:] == ["created", "join", "leave", "destroyed"]
        assert names.count("leave") == 3
        assert ann.left == bob.left == []


@in_memory_async
async def test_connections_that_come_when_uvicorn_was_told(connect, events):
    """They join and leave as ever."""
    with uvicorn_here() as server:
        await connect(AsyncToldChat, "room")
        signal.raise_signal(signal.SIGTERM)
        bob = await connect(AsyncToldChat, "room")
        await bob.disconnect()
        await aeventually(lambda: server.should_exit)
    names = [one.name for one in events]
    assert names.count("join") == names.count("leave") == 2
    assert names[-1] == "destroyed"


def hold_commits(monkeypatch):
    """Let the store answer no commit until the event that is returned is set."""
    [node] = find_nodes("default")
    commit, may_commit = node.store.commit, asyncio.Event()

    async def commit_later(*args):
        await may_commit.wait()
        return await commit(*args)

    monkeypatch.setattr(node.store, "commit", commit_later)
    return node, may_commit


@in_memory_async
async def test_nobody_fails_to_join_as_uvicorn_was_told(connect, events, monkeypatch):
    """Of those who are joining one is with the store, and the others wait."""
    with uvicorn_here() as server:
        await connect(AsyncToldChat, "room")
        node, may_commit = hold_commits(monkeypatch)
        coming = [asyncio.create_task(connect(AsyncToldChat, "room")) for _ in range(3)]
        [shard] = node._shards
        await aeventually(lambda: len(shard.memberships()), equals=4)
        signal.raise_signal(signal.SIGTERM)
        await aeventually(lambda: node.is_told_to_stop)
        assert "leave" not in [one.name for one in events]
        may_commit.set()
        for client in await asyncio.gather(*coming):
            await client.disconnect()
        await aeventually(lambda: server.should_exit)
    names = [one.name for one in events]
    assert names.count("join") == names.count("leave") == 4


@pytest.mark.parametrize("server_here", [uvicorn_here, daphne_here])
@in_memory_async
async def test_the_server_does_not_wait_for_a_store_that_does_not_answer(
    connect, events, monkeypatch, server_here
):
    with server_here() as server:
        ann = await connect(AsyncToldChat, "room")
        _, may_commit = hold_commits(monkeypatch)
        signal.raise_signal(signal.SIGTERM)
        await aeventually(lambda: server.should_exit)
        assert "leave" not in [one.name for one in events]
        may_commit.set()
        await ann.disconnect()
    assert [one.name for one in events][-2:] == ["leave", "destroyed"]


@in_memory_async
async def test_another_handler_of_the_signal_is_left_alone(connect):
    """It need not end the process."""

    def handler(number, frame):
        """Do nothing."""

    former = signal.signal(signal.SIGTERM, handler)
    try:
        await connect(AsyncToldChat, "room")
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, former)


@in_memory_async
async def test_no_garbage_is_collected_amid_the_leaves(connect, events):
    """And what there is by then is frozen until all have left, and not for ever."""
    frozen = []

    async def look(**kwargs):
        assert not gc.isenabled()
        frozen.append(gc.get_freeze_count())

    group_leave.connect(look)
    before = gc.get_freeze_count()
    try:
        with uvicorn_here() as server:
            ann = await connect(AsyncToldChat, "room")
            signal.raise_signal(signal.SIGTERM)
            await aeventually(lambda: server.should_exit)
            assert gc.isenabled()
            await ann.disconnect()
            assert find_nodes("default") == []
    finally:
        group_leave.disconnect(look)
    assert frozen[0] > before + 1000
    assert gc.get_freeze_count() == 0


@in_memory_async
async def test_garbage_that_was_not_collected_before_is_not_afterwards(connect):
    gc.disable()
    try:
        with uvicorn_here() as server:
            await connect(AsyncToldChat, "room")
            signal.raise_signal(signal.SIGTERM)
            await aeventually(lambda: server.should_exit)
        assert not gc.isenabled()
    finally:
        gc.enable()


@async_only
async def test_members_leave_group_by_group(connect, events, monkeypatch):
    """And what is left to do for the connections comes after all leaves."""
    rooms = [f"room {number}" for number in range(5)]
    for number in range(20):
        client = await connect(AsyncToldChat, rooms[number % 5])
        await client.join_group("all")
    [node] = find_nodes("default")
    committed, left_at = [], []
    commit, finish = node.store.commit, LocalConnection.finish

    async def commit_and_note(*args):
        committed.extend(operation.group for operation in args[3])
        return await commit(*args)

    async def finish_and_note(connection):
        left_at.append([one.name for one in events].count("leave"))
        await finish(connection)

    monkeypatch.setattr(node.store, "commit", commit_and_note)
    monkeypatch.setattr(LocalConnection, "finish", finish_and_note)
    await node.shutdown()
    assert committed == ["all"] * 20 + [room for room in rooms for _ in range(4)]
    assert left_at == [40] * 20

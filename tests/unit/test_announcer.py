"""Firing signals: in order, beside each other, and in a thread of their own."""

import asyncio
import threading
from functools import partial

import django
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.dispatch import Signal

from channels_groups.announcer import (
    Announcement,
    Announcer,
    announcing,
    check_not_announcing,
    check_not_awaited,
    waits_for,
)
from channels_groups.groups import ConnectionGroup
from channels_groups.manager import GroupManager


@pytest.fixture
def signal():
    return Signal()


@pytest.fixture
async def announcer():
    announcer = Announcer()
    yield announcer
    await announcer.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def announcement(signal, name="room", waiting=frozenset(), **arguments):
    group = ConnectionGroup(name, GroupManager())
    finished = asyncio.get_running_loop().create_future()
    fired = [(signal, arguments)]
    finish = partial(finished.set_result, None)
    one = Announcement(GroupManager, group, fired, finish, waiting)
    one.finished = finished
    return one


async def test_without_receivers_it_is_finished_at_once(announcer, signal):
    one = announcement(signal)
    announcer.announce(one)
    assert one.finished.done()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_group_is_told_in_order(announcer, signal):
    seen = []

    async def receive(number, group, **kwargs):
        await asyncio.sleep(0.02 if number == 0 else 0)
        seen.append((group.name, number))

    signal.connect(receive)
    several = [announcement(signal, number=number) for number in range(4)]
    for one in several:
        announcer.announce(one)
    assert not several[0].finished.done()
    await asyncio.gather(*(one.finished for one in several))
    assert seen == [("room", number) for number in range(4)]


async def test_groups_do_not_wait_for_each_other(announcer, signal):
    go_on = asyncio.Event()

    async def receive(group, **kwargs):
        if group.name == "slow":
            await go_on.wait()

    signal.connect(receive)
    slow, fast = announcement(signal, "slow"), announcement(signal, "fast")
    announcer.announce(slow)
    announcer.announce(fast)
    await asyncio.wait_for(fast.finished, 5)
    assert not slow.finished.done()
    go_on.set()
    await asyncio.wait_for(slow.finished, 5)


async def test_a_receiver_of_one_sender_hears_no_other(announcer, signal):
    async def receive(**kwargs):
        raise AssertionError("not for me")

    class Other(GroupManager):
        pass

    signal.connect(receive, sender=Other)
    one = announcement(signal)
    announcer.announce(one)
    assert one.finished.done()


async def test_sync_receivers_do_not_need_the_thread_that_waits_for_them(
    announcer, signal
):
    threads = []

    def receive(**kwargs):
        threads.append(threading.current_thread())

    signal.connect(receive)
    loop = asyncio.get_running_loop()
    one = announcement(signal)

    def wait_like_a_sync_consumer():
        loop.call_soon_threadsafe(announcer.announce, one)

        async def finished():
            await one.finished

        asyncio.run_coroutine_threadsafe(finished(), loop).result(5)
        return threading.current_thread()

    waiting = await sync_to_async(wait_like_a_sync_consumer)()
    assert threads and waiting not in threads


async def test_receivers_know_who_waits_for_them(announcer, signal):
    seen, connection = [], object()

    async def receive(**kwargs):
        seen.append(announcing())
        for check, what in [
            (check_not_announcing, "room"),
            (check_not_announcing, "outer"),
            (check_not_awaited, connection),
        ]:
            with pytest.raises(RuntimeError, match="Connection.set_group"):
                check(what)
        check_not_announcing("another")
        check_not_awaited(object())

    signal.connect(receive)
    waiting = frozenset(["outer", connection])
    one = announcement(signal, waiting=waiting)
    announcer.announce(one)
    await one.finished
    assert seen == [{"room", "outer", connection}]
    assert announcing() == frozenset()
    check_not_announcing("room")


async def test_one_announcement_does_not_inherit_from_the_one_before(announcer, signal):
    seen = []

    async def receive(**kwargs):
        seen.append(announcing())

    signal.connect(receive)
    first = announcement(signal, waiting=frozenset(["outer"]))
    second = announcement(signal)
    announcer.announce(first)
    announcer.announce(second)
    await second.finished
    assert seen == [{"room", "outer"}, {"room"}]


async def test_a_receiver_that_raises_stops_nothing(announcer, signal, caplog):
    async def fail(**kwargs):
        raise LookupError("a receiver's mistake")

    signal.connect(fail)
    several = [announcement(signal) for _ in range(2)]
    for one in several:
        announcer.announce(one)
    await asyncio.gather(*(one.finished for one in several))
    assert caplog.text.count("a receiver's mistake") >= 2


async def test_a_receiver_that_is_cancelled_stops_nothing(announcer, signal, caplog):
    async def receive(number, **kwargs):
        if number == 0:
            raise asyncio.CancelledError

    signal.connect(receive)
    several = [announcement(signal, number=number) for number in range(2)]
    for one in several:
        announcer.announce(one)
    await asyncio.wait_for(asyncio.gather(*(one.finished for one in several)), 10)
    if django.VERSION < (6, 1):  # It passes over it without a word.
        assert "was cancelled" in caplog.text


async def test_stopping_fires_what_was_announced(signal):
    seen = []

    async def receive(number, **kwargs):
        await asyncio.sleep(0)
        seen.append(number)

    signal.connect(receive)
    announcer = Announcer()
    for number in range(3):
        announcer.announce(announcement(signal, number=number))
    await announcer.stop()
    assert seen == [0, 1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_circle_of_waiting_receivers_is_not_closed(announcer, signal):
    """A's waits for b, b's for c; c's may wait for another, but not for a or b."""
    ready, over = asyncio.Event(), asyncio.Event()
    waiting, seen = set(), []

    async def receive(group, awaits, **kwargs):
        if awaits:
            with waits_for(awaits):
                waiting.add(group.name)
                if len(waiting) == 2:
                    ready.set()
                await over.wait()
            return
        await ready.wait()
        for name in "abcd":
            try:
                check_not_announcing(name)
            except RuntimeError:
                seen.append(name)
        over.set()

    signal.connect(receive)
    todo = [announcement(signal, *one) for one in ("a", "b", "c")]
    for one, awaits in zip(todo, ("b", "c", None)):
        one.signals[0][1]["awaits"] = awaits
        announcer.announce(one)
    await asyncio.wait_for(asyncio.gather(*(one.finished for one in todo)), 5)
    assert seen == ["a", "b", "c"]
    check_not_announcing("a")


async def test_the_database_connections_of_sync_receivers_are_looked_after(
    signal, monkeypatch
):
    """In their thread: old ones are closed before receivers, all with the thread."""
    threads = {"cleaned": [], "received": [], "closed": []}

    def note(name, *_, **__):
        threads[name].append(threading.get_ident())

    monkeypatch.setattr("channels.db.close_old_connections", partial(note, "cleaned"))
    receiver = partial(note, "received")
    signal.connect(receiver)
    announcer = Announcer()
    announcer.announce(announcement(signal))
    await announcer.stop()
    assert threads["cleaned"] == threads["received"] != []

    monkeypatch.setattr(connections, "close_all", partial(note, "closed"))
    announcer = Announcer()
    for _ in range(3):
        announcer.announce(announcement(signal))
    await announcer.stop()
    assert threads["received"][1:] == threads["closed"] * 3
    assert threads["cleaned"][1:] == threads["closed"]


async def test_connections_that_cannot_be_closed_stop_nothing(
    announcer, signal, monkeypatch, caplog
):
    def fail():
        raise RuntimeError("Deliberately.")

    monkeypatch.setattr("channels.db.close_old_connections", fail)
    seen = []

    async def receive(number, **kwargs):
        seen.append(number)

    signal.connect(receive)
    todo = [announcement(signal, number=number) for number in range(2)]
    for one in todo:
        announcer.announce(one)
    await asyncio.wait_for(asyncio.gather(*(one.finished for one in todo)), 10)
    assert seen == [0, 1]
    assert "Old database connections were not closed" in caplog.text

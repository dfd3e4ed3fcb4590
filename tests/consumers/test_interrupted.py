"""Whatever comes between in the middle of a join, a move, a leave or an end.

Each is held at each place where it waits, something happens there, and it goes on.
Afterwards the store, the consumer, the deliveries and the signals say the same.
"""

import asyncio
from contextlib import suppress

import pytest

from channels_groups import shard
from channels_groups.exceptions import ConnectionClosed, StoreUnavailable
from channels_groups.manager import get_group, get_group_manager

from ..helpers.events import violations
from ..helpers.eventually import aeventually
from ..helpers.points import Pause, come_between
from .chats import AsyncToldChat, cases

in_memory_async = cases("memory-async")

JOINING = ["before policy", "before enter", "after enter", "before join", "after join"]
LEAVING = ["before leave", "after leave", "before exit", "after exit"]
#: Where each of them waits.
PLACES = [
    *(("join", place) for place in [*JOINING, "before announce", "after announce"]),
    *(("move", place) for place in [*JOINING, "before announce", *LEAVING]),
    *(("leave", place) for place in [*LEAVING, "before announce", "after announce"]),
    *(("end", place) for place in [*LEAVING, "before announce", "after announce"]),
]


# What happens meanwhile


async def is_cancelled(client, pause):
    client.future.cancel()


async def is_cancelled_twice(client, pause):
    client.future.cancel()
    await asyncio.sleep(0)
    client.future.cancel()


async def client_goes(client, pause):
    client.input_queue.put_nowait({"type": "websocket.disconnect", "code": 1001})


async def is_closed(client, pause):
    client.consumer._connection.close(4000, "enough")


async def is_moved(client, pause):
    with suppress(ConnectionClosed):  # It is just ending.
        await client.consumer.connection.aset_group("elsewhere")


async def moves_in_another_task(client, pause):
    async def move():
        with suppress(ConnectionClosed):  # It has ended meanwhile.
            await client.consumer.set_group("third")

    moving = asyncio.create_task(move())
    client.tasks = [moving]


async def store_fails(client, pause):
    pause.error = StoreUnavailable("Deliberately.")


async def nobody_answers_in_time(client, pause):
    await asyncio.sleep(3 * shard.TIMEOUT)


HAPPENINGS = [
    *(is_cancelled, is_cancelled_twice, client_goes, is_closed, is_moved),
    *(moves_in_another_task, store_fails, nobody_answers_in_time),
]


def cases_of(happenings):
    """Return all that may happen at all places; announcing asks no store."""
    return [
        pytest.param(what, place, happen, id=f"{what} {place} {happen.__name__}")
        for what, place in PLACES
        for happen in happenings
        if not (happen is store_fails and place.endswith("announce"))
    ]


@pytest.mark.parametrize("what, place, happen", cases_of(HAPPENINGS))
@in_memory_async
async def test_interrupted(
    open_client, connect, events, monkeypatch, what, place, happen
):
    stays = await connect(AsyncToldChat, "a", user_id="stays")
    client = open_client(AsyncToldChat, room="new" if what == "join" else "old")
    client.tasks = []
    if what != "join":
        assert (await client.connect())[0]
    monkeypatch.setattr(shard, "TIMEOUT", 0.2)
    pause = Pause()
    come_between(place, pause, monkeypatch.setattr)
    begin(client, what)
    try:
        await asyncio.wait_for(pause.reached.wait(), 30)
        await happen(client, pause)
        await asyncio.sleep(0.002)
    finally:
        pause.end()
    for task in client.tasks:
        await task
    await aeventually(lambda: differences(client, stays), equals=[])
    await aeventually(lambda: deaf_or_strange(client, stays), equals=[])
    await aeventually(lambda: violations(as_logged(events)), equals=[])


def begin(client, what):
    if what == "join":
        assert client.future  # That starts it.
        client.input_queue.put_nowait({"type": "websocket.connect"})
    elif what == "end":
        client.input_queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
    else:
        room = {"move": "new", "leave": None}[what]
        done = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda done: done.cancelled() or done.exception())
        client._todo.append((lambda consumer: consumer.set_group(room), done))
        client.input_queue.put_nowait({"type": "websocket.receive", "text": "do"})


def rooms_of(client):
    """Return where a client is, by its consumer."""
    return set() if client.future.done() else set(client.consumer.joined_groups)


async def differences(client, stays):
    """Return where the store differs from what the consumers say."""
    wanted = {"a": {stays.id}}
    for room in rooms_of(client):
        wanted.setdefault(room, set()).add(client.id)
    found = {}
    async for group in get_group_manager().agroups():
        found[group.name] = {one.id async for one in group}
        if await group.acount() != len(found[group.name]):
            return [f"count of {group.name}"]
    return [] if found == wanted else [(found, wanted)]


async def deaf_or_strange(client, stays):
    """Return who did not hear what is said in its rooms, or heard it elsewhere."""
    drain(client), drain(stays)
    for room in ("a", "old", "new", "third", "elsewhere"):
        await get_group(room).asend(room)
    await asyncio.sleep(0.05)
    heard = [(one, drain(one)) for one in (client, stays)]
    return [
        (one, texts)
        for one, texts in heard
        if texts != rooms_of(one) and is_accepted(one)
    ]


def is_accepted(client):
    return not client.future.done() and client.consumer._connection._state == "open"


def drain(client):
    """Return the texts that a client has got since the last time."""
    texts = set()
    while not client.output_queue.empty():
        texts.add(client.output_queue.get_nowait().get("text"))
    return texts - {None}


def as_logged(events):
    """Return signals as the processes of other tests log them."""
    return [
        {
            "event": one.name,
            "group": one.group.name,
            "id": one.connection and one.connection.id,
            "pid": 0,
            "reason": one.reason,
            "count": one.count,
            "user_count": one.user_count,
            "revision": one.revision,
        }
        for one in events
    ]

"""GRACE: who is back in time has never been away."""

import asyncio

import pytest

from channels_groups import shard
from channels_groups.changes import Changes
from channels_groups.exceptions import ConnectionClosed, StoreUnavailable
from channels_groups.manager import get_group
from channels_groups.node import Node, find_nodes
from channels_groups.testing import capture_group_events, simulated_process

from ..helpers.eventually import aeventually
from ..helpers.points import Pause, come_between
from .chats import AsyncToldChat, async_only, cases, in_memory

in_memory_async = cases("memory-async")

LONG = 30


def names(events):
    return [event.name for event in events]


@pytest.fixture(autouse=True)
async def all_over(layer, kind, server, prefix):
    """Take what still lingers away, which nobody waits for in a test."""
    yield
    for node in find_nodes("default"):
        await node.shutdown()
    if kind != "memory":
        with server.client() as client:
            for key in client.scan_iter(f"{prefix}:groups:*", count=1000):
                if not key.endswith("answer:*"):
                    client.delete(key)


@async_only
async def test_a_consumer_whose_clients_are_not_waited_for(
    told_chat, connect, configure, events, monkeypatch
):
    configure(GRACE=LONG)
    monkeypatch.setattr(told_chat, "group_grace", 0, raising=False)
    ann = await connect(told_chat, "room", user_id="ann")
    ann_id = ann.id
    await ann.disconnect()
    assert not await get_group("room").aexists()
    ann = await connect(told_chat, "room", user_id="ann")
    assert ann.id != ann_id
    leaves = [event.reason for event in events if event.name == "leave"]
    assert leaves == ["disconnected"]


async def test_who_reloads_is_the_same_member(told_chat, connect, configure, events):
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann", info={"n": 1})
    bob = await connect(told_chat, "room", user_id="bob")
    await aeventually(lambda: ann.joined)
    ann_id, joined_at = ann.id, ann.consumer.connection.joined_at
    before = len(events)
    for _ in range(2):
        await ann.disconnect()
        assert await get_group("room").acount() == 2
        ann = await connect(told_chat, "room", user_id="ann", info={"n": 1})
        assert ann.id == ann_id
        assert ann.consumer.connection.joined_at == joined_at
    assert len(events) == before
    assert bob.joined == bob.left == bob.updated == []
    [found] = [one async for one in get_group("room") if one.id == ann_id]
    assert found.scope["client"] is ann
    await found.asend("to you alone")
    assert await ann.receive_from() == "to you alone"
    await get_group("room").asend("to Bob", exclude=[found])
    assert await bob.receive_from() == "to Bob"
    assert await ann.has_received_nothing()
    await ann.set_group(None)
    assert names(events[before:]) == ["leave"]
    assert (events[-1].connection.id, events[-1].reason) == (ann_id, "left")
    await aeventually(lambda: bob.left)
    assert [one.id for _, one in bob.left] == [ann_id]


def known(*ids):
    return "&".join(["live=1", *(f"group_former={id}" for id in ids)]).encode()


async def test_a_new_page_before_the_end_of_the_old_one(
    told_chat, connect, configure, events
):
    """It says whose place it takes, in all of the groups; the old one is closed."""
    configure(GRACE=LONG, MAX_MEMBERS=2)
    ann = await connect(told_chat, "room", user_id="ann", info={"n": 1})
    bob = await connect(told_chat, "room", user_id="bob")
    await ann.join_group("second")
    await aeventually(lambda: ann.joined)
    ann_id, before = ann.id, len(events)
    for _ in range(2):
        old, former = ann, known(ann_id)
        about = {"user_id": "ann", "info": {"n": 1}, "query_string": former}
        ann = await connect(told_chat, "room", **about)
        assert await old.close_code() == (1000, "taken over")
        await old.end()
        await ann.join_group("second")
        assert ann.id == ann_id
    assert len(events) == before
    assert bob.joined == bob.left == bob.updated == []
    assert await get_group("second").acount() == 1
    await get_group("room").asend("all")
    assert [await one.receive_from() for one in (ann, bob)] == ["all", "all"]
    assert find_nodes("default")[0].resumed.keys() == {
        ("room", ann_id),
        ("second", ann_id),
    }


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "not heard"])
@cases("memory-async", "core-async")
async def test_the_former_process_hears_of_it(
    told_chat, connect, open_client, configure, events, monkeypatch, heard
):
    """By a message or, if that is lost, by its next renewal, and keeps nothing."""
    configure(GRACE=LONG)
    if not heard:
        monkeypatch.setattr(Changes, "tell_owner", lambda *args: None)
    ann = await connect(told_chat, "room", user_id="ann")
    bob = await connect(told_chat, "room", user_id="bob")
    await aeventually(lambda: ann.joined)
    ann_id, before = ann.id, len(events)
    async with simulated_process() as other:
        about = {"room": "room", "user_id": "ann", "query_string": known(ann_id)}
        new = open_client(told_chat, **about)
        new._run = new.application = other.serve(new._run)
        assert await new.connect() == (True, None)
        assert new.id == ann_id
        assert await ann.close_code() == (1000, "taken over")
        await ann.end()
        await get_group("room").asend("all")
        assert [await one.receive_from() for one in (new, bob)] == ["all", "all"]
        assert len(events) == before and bob.joined == bob.left == []
        found = await get_group("room").aget(ann_id)
        assert found.scope is None, "it is somewhere else"
        await new.set_group(None)
        await aeventually(lambda: [one.id for _, one in bob.left], equals=[ann_id])
        await new.end()
    assert names(events[before:]) == ["leave"]
    assert await get_group("room").acount() == 1


@pytest.mark.parametrize("happens", ["nothing", "its client goes", "asked again"])
@cases("memory-async", "core-async")
async def test_the_store_is_gone_when_it_is_asked_about_one_that_was_taken(
    told_chat, connect, open_client, configure, events, monkeypatch, happens
):
    """It is told when the store is back, once, and the other process has it alone."""
    configure(GRACE=LONG)
    monkeypatch.setattr(Changes, "tell_owner", lambda *args: None)
    pause, find_out = Pause(), Node.find_out
    pause.error = StoreUnavailable("Deliberately.")
    come_between("before confirm", pause, monkeypatch.setattr)
    monkeypatch.setattr(Node, "find_out", lambda *args: None)
    ann = await connect(told_chat, "room", user_id="ann")
    await connect(told_chat, "room", user_id="bob")
    node, ann_id, before = find_nodes("default")[0], ann.id, len(events)
    async with simulated_process() as other:
        about = {"room": "room", "user_id": "ann", "query_string": known(ann_id)}
        new = open_client(told_chat, **about)
        new._run = new.application = other.serve(new._run)
        assert await new.connect() == (True, None)
        monkeypatch.setattr(shard, "TIMEOUT", 0.05)
        find_out(node, "room", ann_id)
        await asyncio.wait_for(pause.reached.wait(), 10)
        # The time in which somebody waits for the answer has to pass. No event tells
        # of that: the task that asks stays with the store.
        await asyncio.sleep(2 * shard.TIMEOUT)
        if happens == "asked again":
            find_out(node, "room", ann_id)
            find_out(node, "room", ann_id)
        elif happens == "its client goes":
            ann.input_queue.put_nowait({"type": "websocket.disconnect", "code": 1001})
        pause.end()
        if happens != "its client goes":
            assert await ann.close_code() == (1000, "taken over")
        await ann.end()
        assert await get_group("room").acount() == 2
        assert len(events) == before
        assert new.id == ann_id
        await new.set_group(None)
        assert names(events[before:]) == ["leave"]
        await new.end()


@cases("memory-async", "core-async", "pubsub-sync")
async def test_who_is_asked_about_and_still_there_is_not_updated(
    told_chat, connect, configure, monkeypatch
):
    """A renewal may have said that it was taken, and it is back since."""
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann")
    bob = await connect(told_chat, "room", user_id="bob")
    await aeventually(lambda: ann.joined)
    pause = Pause()
    pause.end()
    come_between("after confirm", pause, monkeypatch.setattr)
    with capture_group_events("update") as updates:
        find_nodes("default")[0].find_out("room", ann.id)
        await asyncio.wait_for(pause.reached.wait(), 10)
        await ann.do(lambda consumer: consumer.update_info({"n": 1}))
        await aeventually(lambda: bob.updated)
    assert [one.connection.info for one in updates] == [{"n": 1}]
    assert await get_group("room").acount() == 2


@pytest.mark.parametrize("comes", ["before the old one's end", "after it"])
@cases("memory-async", "core-async", "pubsub-sync")
async def test_who_has_another_id_in_another_group_keeps_each(
    told_chat, connect, configure, events, comes
):
    """As who resumes one in a group, and then enters one that is new to it."""
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann")
    first = ann.id
    await ann.disconnect()
    ann = await connect(told_chat, "room", user_id="ann")
    await ann.join_group("second")
    other = await connect(told_chat, "second", user_id="ann")
    [second] = {one.id async for one in get_group("second")} - {other.id}
    assert ann.id == first != second
    before = len(events)
    for _ in range(2):
        old, about = ann, {"user_id": "ann", "query_string": known(second, first)}
        if comes == "after it":
            await old.disconnect()
        ann = await connect(told_chat, "room", **about)
        await ann.join_group("second")
        if comes != "after it":
            assert await old.close_code() == (1000, "taken over")
            await old.end()
    assert len(events) == before and other.joined == other.left == []
    assert [one.id async for one in get_group("room")] == [first]
    assert {one.id async for one in get_group("second")} == {second, other.id}


@cases("memory-async", "core-sync")
async def test_nobody_takes_anothers_place(chat, connect, configure, events):
    configure(GRACE=LONG)
    ann = await connect(chat, "room", user_id="ann")
    anonymous = await connect(chat, "room")
    for user_id, former in (
        ("bob", ann.id),
        (None, ann.id),
        (None, anonymous.id),
        ("ann", anonymous.id),
        ("ann", ann.id + "!"),
        ("ann", 65 * "a"),
    ):
        await connect(chat, "room", user_id=user_id, query_string=known(former))
    too_many = known(*"abcdefgh", ann.id)
    await connect(chat, "room", user_id="ann", query_string=too_many)
    assert names(events) == ["created", *9 * ["join"]]
    assert await get_group("room").acount() == 9


@in_memory_async
async def test_without_grace_no_place_is_taken(chat, connect, events):
    ann = await connect(chat, "room", user_id="ann")
    tab = await connect(chat, "room", user_id="ann", query_string=known(ann.id))
    assert ann.id != tab.id
    assert names(events) == ["created", "join", "join"]


async def test_who_does_not_come_back_leaves_once(
    told_chat, connect, configure, events
):
    configure(GRACE=0.3)
    ann = await connect(told_chat, "room", user_id="ann")
    bob = await connect(told_chat, "room", user_id="bob")
    ann_id = ann.id
    await ann.disconnect()
    assert "leave" not in names(events)
    await aeventually(lambda: "leave" in names(events))
    leave = events[-1]
    assert (leave.connection.id, leave.reason) == (ann_id, "expired")
    assert (leave.count, leave.user_count) == (1, 1)
    await aeventually(lambda: bob.left)
    ann = await connect(told_chat, "room", user_id="ann")
    assert ann.id != ann_id
    await ann.disconnect()
    await bob.disconnect()
    await aeventually(lambda: "destroyed" in names(events))
    assert [event.reason for event in events if event.name == "leave"] == 3 * [
        "expired"
    ]
    await aeventually(lambda: not find_nodes("default"))


@in_memory
async def test_other_info_is_told_as_an_update(told_chat, connect, configure, events):
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann", info={"n": 1})
    bob = await connect(told_chat, "room", user_id="bob")
    ann_id, before = ann.id, len(events)
    await ann.disconnect()
    ann = await connect(told_chat, "room", user_id="ann", info={"n": 2})
    await aeventually(lambda: bob.updated)
    [(_, told)] = bob.updated
    assert (told.id, told.info) == (ann_id, {"n": 2})
    assert len(events) == before and bob.joined == bob.left == []


@cases("memory-async", "core-sync")
async def test_who_leaves_at_once(chat, connect, configure, events):
    """Who says so, whom the server closes, and who has no user id."""
    configure(GRACE=LONG)
    ann = await connect(chat, "a", user_id="ann")
    await ann.set_group("b")
    assert names(events) == ["created", "join", "created", "join", "leave", "destroyed"]
    [found] = [one async for one in get_group("b")]
    await found.aclose(4000, "kicked")
    await ann.close_code()
    await ann.end()
    assert (events[-2].name, events[-2].reason) == ("leave", "disconnected")
    bob = await connect(chat, "a", user_id="bob")
    closing = asyncio.create_task(bob.do(lambda consumer: consumer.close()))
    await bob.close_code()
    await closing
    await bob.end()
    nobody = await connect(chat, "b")
    await nobody.disconnect()
    leaves = [event for event in events if event.name == "leave"]
    assert len(leaves) == 4 and names(events).count("destroyed") == 4


@cases("memory-async", "pubsub-async")
async def test_every_group_of_a_connection_lingers(chat, connect, configure, events):
    configure(GRACE=LONG)
    ann = await connect(chat, "room", user_id="ann")
    for name in ("x", "y"):
        await ann.join_group(name)
    ann_id, before = ann.id, len(events)
    await ann.disconnect()
    ann = await connect(chat, "room", user_id="ann")
    await ann.join_group("y")
    groups = [get_group(name) for name in ("room", "y")]
    for group in groups:
        assert [member.id async for member in group] == [ann_id]
    await groups[1].asend("not to me", exclude=[ann.consumer.connection])
    assert await ann.has_received_nothing()
    assert len(events) == before
    assert await get_group("x").acount() == 1


@async_only
async def test_two_tabs_that_reload_stay_two(connect, configure, events):
    configure(GRACE=LONG)
    tabs = [await connect(AsyncToldChat, "room", user_id="ann") for _ in range(2)]
    ids = {tab.id for tab in tabs}
    before = len(events)
    for tab in tabs:
        await tab.disconnect()
    tabs = await asyncio.gather(
        *(connect(AsyncToldChat, "room", user_id="ann") for _ in range(2))
    )
    assert {tab.id for tab in tabs} == ids
    assert len(events) == before
    await connect(AsyncToldChat, "room", user_id="ann")
    assert names(events[before:]) == ["join"]
    assert await get_group("room").acount() == 3


@async_only
async def test_a_lingering_member_is_of_no_process(connect, configure, events):
    configure(GRACE=LONG)
    ann = await connect(AsyncToldChat, "room", user_id="ann")
    old = ann.consumer.connection
    await ann.disconnect()
    [found] = [one async for one in get_group("room")]
    assert found == old and found.scope is None
    with pytest.raises(ConnectionClosed):
        await old.aset_group("elsewhere")
    [node] = find_nodes("default")
    assert node.connections == {}
    await node.shutdown()
    assert find_nodes("default") == []
    assert await get_group("room").acount() == 1
    before = len(events)
    again = await connect(AsyncToldChat, "room", user_id="ann")
    assert again.id == found.id and len(events) == before


@cases("core-async", "pubsub-async")
async def test_a_store_emptied_while_somebody_lingers(
    connect, configure, events, server, prefix
):
    """The process that had it writes it back; it ends once, or is resumed."""
    configure(GRACE=8)
    ann = await connect(AsyncToldChat, "room", user_id="ann")
    bob = await connect(AsyncToldChat, "room", user_id="bob")
    cat = await connect(AsyncToldChat, "cats", user_id="cat")
    ids = {"ann": ann.id, "bob": bob.id}
    await ann.disconnect()
    await cat.disconnect()
    before = len(events)
    with server.client() as client:
        for key in client.scan_iter(f"{prefix}:groups:*", count=1000):
            client.delete(key)

    async def members():
        return {one.id async for one in get_group("room")}

    await aeventually(members, equals=set(ids.values()))
    ann = await connect(AsyncToldChat, "room", user_id="ann")
    assert ann.id == ids["ann"] and len(events) == before
    await aeventually(lambda: len(events) == before + 2, timeout=20)
    assert [(e.name, e.group.name, e.reason) for e in events[before:]] == [
        ("leave", "cats", "expired"),
        ("destroyed", "cats", None),
    ]


@in_memory
async def test_a_full_group_lets_back_in_who_lingers(chat, connect, configure):
    configure(GRACE=LONG, MAX_MEMBERS=1)
    ann = await connect(chat, "room", user_id="ann")
    await ann.disconnect()
    bob = await connect(chat, None, user_id="bob")
    from channels_groups.exceptions import GroupFull

    with pytest.raises(GroupFull):
        await bob.set_group("room")
    with capture_group_events() as events:
        await connect(chat, "room", user_id="ann")
    assert events == []


@pytest.mark.parametrize("goes", ["with its client", "cancelled"])
@async_only
async def test_who_goes_while_resuming_is_no_ghost(
    told_chat, connect, open_client, configure, events, monkeypatch, goes
):
    """The leave waits for the answer, and is one of the membership that it tells."""
    configure(GRACE=0.3)
    await connect(told_chat, "beside")
    ann = await connect(told_chat, "room", user_id="ann")
    await ann.disconnect()
    pause = Pause()
    come_between("after join", pause, monkeypatch.setattr)
    ann = open_client(told_chat, room="room", user_id="ann")
    assert ann.future  # That starts it.
    ann.input_queue.put_nowait({"type": "websocket.connect"})
    await asyncio.wait_for(pause.reached.wait(), 10)
    if goes == "cancelled":
        ann.future.cancel()
    else:
        ann.consumer._connection.close()
    pause.end()
    await aeventually(lambda: names(events)[-2:], equals=["leave", "destroyed"])
    assert names(events).count("leave") == 1
    assert await get_group("room").acount() == 0


@in_memory_async
async def test_who_is_cancelled_after_resuming_is_no_member(
    told_chat, connect, configure, events, monkeypatch
):
    """With other info, which is written after the join."""
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann", info={"n": 1})
    await ann.disconnect()
    ann = await connect(told_chat, None, user_id="ann", info={"n": 2})
    pause = Pause()
    come_between("before update", pause, monkeypatch.setattr)
    entering = asyncio.create_task(ann.consumer.set_group("room"))
    await asyncio.wait_for(pause.reached.wait(), 10)
    entering.cancel()
    pause.end()
    await asyncio.wait([entering])
    assert entering.cancelled()
    await aeventually(lambda: names(events)[-2:], equals=["leave", "destroyed"])
    assert ann.consumer.joined_groups == frozenset()


@in_memory_async
async def test_who_ends_while_taking_a_place_is_no_ghost(
    told_chat, connect, configure, events, monkeypatch
):
    """The place is given up by then; its owner may come back to it."""
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann")
    about = {"user_id": "ann", "query_string": known(ann.id)}
    new = await connect(told_chat, None, **about)
    ann_id, before, pause = ann.id, len(events), Pause()
    come_between("before leave", pause, monkeypatch.setattr)
    entering = asyncio.create_task(new.consumer.set_group("room"))
    await asyncio.wait_for(pause.reached.wait(), 10)
    ending = asyncio.create_task(new.disconnect())
    await aeventually(lambda: new.consumer._connection.ended)
    pause.end()
    with pytest.raises(ConnectionClosed):
        await entering
    await ending
    assert await ann.close_code() == (1000, "taken over")
    await ann.end()
    for node in find_nodes("default"):
        assert [one for shard in node._shards for one in shard.memberships()] == []
    again = await connect(told_chat, "room", user_id="ann")
    assert again.id == ann_id
    assert len(events) == before


@in_memory_async
async def test_nobody_takes_the_place_of_oneself(
    told_chat, connect, configure, events, monkeypatch
):
    """Who enters a group again that it is about to leave is not closed."""
    configure(GRACE=LONG)
    ann = await connect(told_chat, "room", user_id="ann")
    await ann.join_group("second")
    pause = Pause()
    come_between("before leave", pause, monkeypatch.setattr)
    leaving = asyncio.create_task(ann.consumer.leave_group("second"))
    await asyncio.wait_for(pause.reached.wait(), 10)
    leaving.cancel()
    await asyncio.wait([leaving])
    entering = asyncio.create_task(ann.consumer.join_group("second"))
    await asyncio.sleep(0)
    pause.end()
    await entering
    assert await ann.has_received_nothing()
    assert await get_group("second").acount() == 1
    assert names(events)[2:] == ["created", "join", "leave", "destroyed"] + [
        *("created", "join")
    ]

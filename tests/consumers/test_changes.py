"""What members are told of the others who come and go."""

import asyncio

import pytest

from channels_groups.manager import get_group

from ..helpers.eventually import aeventually
from .chats import AsyncToldChat, async_only, in_memory


def ids(entries):
    return [connection.id for _, connection in entries]


async def test_the_others_are_told_of_a_join_and_a_leave(told_chat, connect):
    ann = await connect(told_chat, "room", user_id="ann")
    bob = await connect(told_chat, "room", user_id="bob", info={"colour": "blue"})
    bob_id = bob.id
    await aeventually(lambda: ann.joined)
    [(name, connection)] = ann.joined
    assert (name, connection.id, connection.user_id) == ("room", bob_id, "bob")
    assert connection.info == {"colour": "blue"}
    assert connection.group == get_group("room")
    [change] = ann.changes
    assert (change.count, change.user_count) == (2, 2)
    assert change.group == get_group("room")
    assert [one.id for one in change.joined] == [bob_id]
    assert change.left == ()
    assert bob.joined == []
    await bob.disconnect()
    await aeventually(lambda: ann.left)
    assert ids(ann.left) == [bob_id]
    assert ann.changes[-1].count == 1
    assert ann.changes[-1].revision > change.revision
    assert bob.left == []


async def test_who_leaves_is_told_of_it_while_it_is_open(told_chat, connect):
    ann = await connect(told_chat, "a")
    await ann.set_group("b")
    await aeventually(lambda: ann.left)
    assert [(name, one.id) for name, one in ann.left] == [("a", ann.id)]
    await ann.join_group("c")
    await ann.leave_group("c")
    await aeventually(lambda: len(ann.left) == 2)
    await ann.set_group(None)
    await aeventually(lambda: len(ann.left) == 3)
    assert [name for name, _ in ann.left] == ["a", "c", "b"]
    assert ann.joined == []


async def test_nobody_is_told_of_other_groups(told_chat, connect):
    ann = await connect(told_chat, "a")
    bob, cat = await connect(told_chat, "b"), await connect(told_chat, "b")
    await aeventually(lambda: bob.joined)
    await cat.set_group("a")
    await aeventually(lambda: ann.joined and bob.left)
    assert ids(ann.joined) == ids(bob.left) == [cat.id]
    assert ann.left == []


async def test_who_left_is_told_no_more(told_chat, connect):
    ann, bob = await connect(told_chat, "room"), await connect(told_chat, "room")
    await aeventually(lambda: ann.joined)
    await ann.set_group(None)
    await aeventually(lambda: bob.left and ann.left)
    cat = await connect(told_chat, "room")
    await aeventually(lambda: bob.joined)
    assert ids(bob.joined) == [cat.id]
    assert ids(ann.joined) == [bob.id]
    assert await ann.has_received_nothing()


async def test_changes_are_gathered(told_chat, connect, configure):
    configure(CHANGE_INTERVAL=0.5)
    ann = await connect(told_chat, "room")
    others = [await connect(told_chat) for _ in range(5)]
    await asyncio.gather(*(other.set_group("room") for other in others))
    await others[0].set_group(None)
    expected = {other.id for other in others}
    await aeventually(lambda: expected <= set(ids(ann.joined)) and ann.left)
    assert set(ids(ann.joined)) == expected
    assert ids(ann.left) == [others[0].id]
    assert len(ann.changes) <= 2
    assert (ann.changes[-1].count, ann.changes[-1].user_count) == (5, 0)
    revisions = [change.revision for change in ann.changes]
    assert revisions == sorted(revisions)


async def test_an_interval_of_nought_tells_each_at_once(told_chat, connect, configure):
    configure(CHANGE_INTERVAL=0)
    ann = await connect(told_chat, "room")
    others = [await connect(told_chat, "room") for _ in range(3)]
    await aeventually(lambda: len(ann.joined) == 3)
    assert ids(ann.joined) == [other.id for other in others]


async def test_each_is_told_of_what_came_after_its_own_join(
    told_chat, connect, configure
):
    configure(CHANGE_INTERVAL=0.3)
    clients = [await connect(told_chat, "room") for _ in range(5)]
    order = [client.id for client in clients]

    def all_told():
        return all(
            len(client.joined) == len(clients) - 1 - number
            for number, client in enumerate(clients)
        )

    await aeventually(all_told)
    for number, client in enumerate(clients):
        assert ids(client.joined) == order[number + 1 :]
        assert client.left == []


async def test_who_comes_back_is_told_apart_from_who_left(
    told_chat, connect, configure
):
    configure(CHANGE_INTERVAL=0.3)
    ann, bob = await connect(told_chat, "room"), await connect(told_chat, "room")
    await aeventually(lambda: ann.joined)
    await bob.set_group(None)
    await bob.set_group("room")
    await bob.set_group(None)
    await bob.set_group("room")
    await aeventually(lambda: len(ann.joined) == 3 and len(ann.left) == 2)
    inside = {bob.id}
    for change in ann.changes[1:]:
        inside |= {one.id for one in change.joined}
        inside -= {one.id for one in change.left}
    assert inside == {bob.id}
    assert ann.changes[-1].count == 2


async def test_a_storm_ends_in_the_truth(told_chat, connect):
    """Whoever listened from the first to the last knows who is in."""
    ann = await connect(told_chat, "room")
    others = [await connect(told_chat) for _ in range(6)]

    async def wander(number, client):
        for _ in range(4):
            await client.set_group("room")
            await client.set_group("other")
        if number % 2:
            await client.set_group("room")

    await asyncio.gather(*(wander(*pair) for pair in enumerate(others)))
    truth = {one.id async for one in get_group("room")}
    assert truth == {ann.id} | {client.id for client in others[1::2]}

    def believed():
        inside = {ann.id}
        for change in ann.changes:
            inside |= {one.id for one in change.joined}
            inside -= {one.id for one in change.left}
        return inside

    await aeventually(believed, equals=truth)
    revisions = [change.revision for change in ann.changes]
    assert revisions == sorted(revisions)
    assert ann.changes[-1].count == len(truth)


async def test_nothing_is_sent_where_nobody_has_hooks(chat, connect, layer):
    sent = []
    group_send = layer.group_send

    async def spy(group, message):
        sent.append(message["type"])
        await group_send(group, message)

    layer.group_send = spy
    try:
        ann, bob = await connect(chat, "room"), await connect(chat, "room")
        await ann.disconnect()
        await bob.disconnect()
    finally:
        del layer.group_send
    assert "groups.change" not in sent


@async_only
async def test_one_hook_is_enough_to_be_told(connect):
    from .chats import AsyncChat

    class Watcher(AsyncChat):
        async def group_leave(self, group, connection):
            self.scope["client"].left.append((group.name, connection))

    ann, bob = await connect(Watcher, "room"), await connect(AsyncChat, "room")
    bob_id = bob.id
    await bob.disconnect()
    await aeventually(lambda: ids(ann.left), equals=[bob_id])


@async_only
async def test_changes_that_wait_are_merged(connect, configure):
    """A consumer that is busy is told once of what happened meanwhile."""
    configure(CHANGE_INTERVAL=0)
    go_on = asyncio.Event()
    ann = await connect(AsyncToldChat, "room")
    busy = asyncio.create_task(ann.do(lambda consumer: go_on.wait()))
    others = [await connect(AsyncToldChat, "room") for _ in range(6)]
    await aeventually(lambda: len(others[0].joined) == 5)
    go_on.set()
    await busy
    await aeventually(lambda: len(ann.joined) == 6)
    assert len(ann.changes) <= 2  # One was on its way to the handler before.
    assert ann.changes[-1].count == 7


@in_memory
async def test_a_change_is_frozen(told_chat, connect):
    ann, _ = await connect(told_chat, "room"), await connect(told_chat, "room")
    await aeventually(lambda: ann.changes)
    with pytest.raises(AttributeError):
        ann.changes[0].count = 5

"""A second process of channels_groups.testing, on every layer."""

import pytest

from channels_groups.manager import get_group, get_group_manager
from channels_groups.testing import await_for_count, simulated_process

from ..helpers.eventually import aeventually
from .chats import AsyncChat


@pytest.fixture
def connect_to(open_client):
    """Return a function that connects clients to a process."""

    async def connect_to(process, consumer, room, **scope):
        client = open_client(consumer, room=room, **scope)
        client._run = client.application = process.serve(client._run)
        assert await client.connect() == (True, None)
        return client

    return connect_to


async def test_a_second_process_lives_and_dies(chat, connect, connect_to, events):
    """Unlike in memory there is no clock: it is noticed as a real one's death is."""
    group = get_group("room")
    async with simulated_process() as other:
        ann = await connect(AsyncChat, "room", user_id="ann")
        bob = await connect_to(other, chat, "room", user_id="bob")
        await connect_to(other, chat, "bobs", user_id="bob")
        assert len(await get_group_manager().store.nodes()) == 2
        scopes = {one.user_id: one.scope async for one in group}
        assert scopes["ann"] is not None and scopes["bob"] is None
        await group.asend("hello")
        assert await ann.receive_from() == await bob.receive_from() == "hello"
        before = len(events)
        await other.kill()
        assert events[before:] == []
        lost = await events.await_for("leave", timeout=20, group="room", reason="lost")
        assert (lost.connection.user_id, lost.count) == ("bob", 1)
        await events.await_for("destroyed", timeout=20, group="bobs")
    await await_for_count(group, 1)
    assert len([one for one in events if one.name == "leave"]) == 2


async def test_a_second_process_ends_in_order(chat, connect_to, events):
    async with simulated_process() as other:
        await connect_to(other, chat, "room")
    await aeventually(
        lambda: [one.name for one in events][-2:], equals=["leave", "destroyed"]
    )
    assert events[-2].reason == "disconnected"
    assert await get_group_manager().store.nodes() == []

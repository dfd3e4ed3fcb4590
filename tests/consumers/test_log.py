"""The log: quiet on a good day, and with facts in it on a bad one."""

import logging

from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group, get_group_manager

from ..helpers.eventually import aeventually
from .chats import cases, in_memory

on_every_layer = cases("memory-async", "core-sync", "pubsub-async")


def ours(caplog, above=logging.INFO):
    return [
        record
        for record in caplog.records
        if record.name == "channels_groups" and record.levelno > above
    ]


@on_every_layer
async def test_a_healthy_day_logs_nothing_above_info(
    chat, told_chat, connect, open_client, caplog
):
    caplog.set_level(logging.DEBUG, "channels_groups")
    ann = await connect(told_chat, "room", user_id="ann")
    bob = await connect(chat, "room", user_id="bob", info={"name": "Bob"})
    await get_group("room").asend("hello")
    await ann.frames(1)
    await ann.set_group("other")
    await bob.join_group("other")
    await bob.leave_group("other")
    await bob.set_group(None)
    await get_group("other").aclose_all(code=4000, reason="late")
    await ann.close_code()
    # One process goes, the next one comes.
    await ann.end()
    await bob.end()
    await (await connect(chat, "room")).disconnect()
    assert ours(caplog) == []


@in_memory
async def test_an_outage_is_logged_with_its_facts(chat, connect, caplog, configure):
    configure(LEASE=1)
    await connect(chat, "room")
    store = get_group_manager().store
    renew = store.renew

    async def fail(*args):
        raise StoreUnavailable

    store.renew = fail
    await aeventually(lambda: ours(caplog))
    store.renew = renew
    await aeventually(lambda: len(ours(caplog)) == 2)
    begin, end = ours(caplog)
    assert (begin.levelname, begin.alias, begin.shard) == ("ERROR", "default", 0)
    assert (end.levelname, end.alias, end.shard) == ("WARNING", "default", 0)
    assert end.seconds >= 0


@in_memory
async def test_a_connection_that_is_closed_is_named(chat, connect, caplog, configure):
    caplog.set_level(logging.INFO, "channels_groups")
    configure(OUTBOX=2)
    client = await connect(chat, "room")
    local = client.consumer._connection
    for number in range(3):
        local.put({"type": "chat.note", "text": number})
    (record,) = ours(caplog)
    assert (record.alias, record.connection) == ("default", client.id)

"""Where the layer encrypts, nobody reads in Redis who is in a group."""

import pytest

from channels_groups.manager import get_group

from ..helpers.eventually import aeventually
from .chats import cases

USER, COLOUR = "ann-the-user", "a-colour-like-red"


@pytest.fixture
def layer_config(request):
    return {"symmetric_encryption_keys": request.param}


def dump(server, prefix):
    """Return everything under a prefix, keys and values, as bytes."""
    readers = {
        "string": "get {}",
        "hash": "hgetall {}",
        "zset": "zrange {} 0 -1 withscores",
        "set": "smembers {}",
        "list": "lrange {} 0 -1",
    }
    found = b""
    with server.client() as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        for key in client.scan_iter(match=f"{prefix}*"):
            kind = client.type(key).decode()
            command, *rest = readers[kind].split()
            found += (
                key + repr(client.execute_command(command, key, *rest[1:])).encode()
            )
    return found


sealed = pytest.mark.parametrize("layer_config", [["a secret"]], indirect=True)


@sealed
@cases("core-async", "core-sync")
async def test_nothing_about_people_is_readable(
    told_chat, connect, server, prefix, layer_config
):
    ann = await connect(told_chat, "room", user_id=USER, info={"colour": COLOUR})
    await connect(told_chat, "room", user_id="bob")
    await aeventually(lambda: ann.joined)
    found = dump(server, prefix)
    assert b"room" in found
    for secret in (USER, COLOUR, "colour", ann.consumer.channel_name):
        assert secret.encode() not in found
    group = get_group("room")
    seen = await group.aget(ann.id)
    assert (seen.user_id, seen.info) == (USER, {"colour": COLOUR})
    assert await group.ausers() == {USER, "bob"}
    assert await group.auser_count() == 2
    assert ann.joined[0][1].user_id == "bob"
    await group.asend("hello")
    assert await ann.receive_from() == "hello"


@pytest.mark.parametrize("layer_config", [None], indirect=True)
@cases("core-async")
async def test_without_keys_it_would_be_seen_here(
    chat, connect, server, prefix, layer_config
):
    """The check above looks where the data is."""
    await connect(chat, "room", user_id=USER, info={"colour": COLOUR})
    found = dump(server, prefix)
    assert USER.encode() in found and COLOUR.encode() in found


@sealed
@cases("pubsub-async", "pubsub-sync")
async def test_it_works_on_pubsub_too(chat, connect, server, prefix, layer_config):
    ann = await connect(chat, "room", user_id=USER, info={"colour": COLOUR})
    found = dump(server, prefix)
    assert b"room" in found
    assert USER.encode() not in found and COLOUR.encode() not in found
    assert (await get_group("room").aget(ann.id)).user_id == USER

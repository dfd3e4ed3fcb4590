"""Entering and leaving groups, as consumers do it."""

import asyncio
import math
from datetime import datetime, timedelta, timezone

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from channels_groups.exceptions import GroupFull, GroupRejected
from channels_groups.groups import Connection, ConnectionGroup
from channels_groups.manager import GroupManager, get_group, get_group_manager
from channels_groups.signals import group_join, group_leave
from channels_groups.testing import simulated_process
from channels_groups.writer import BATCH

from ..helpers.eventually import aeventually
from .chats import async_only, cases, in_memory


def story(events):
    """Return what the signals tell, in short."""
    return [
        (event.name, event.group.name, event.connection and event.connection.id)
        for event in events
    ]


async def members(name):
    return {connection.id async for connection in get_group(name)}


async def test_a_consumer_is_in_no_group_at_first(chat, connect, events):
    client = await connect(chat)
    consumer = client.consumer
    assert (consumer.group, consumer.group_name) == (None, None)
    assert consumer.joined_groups == frozenset()
    assert isinstance(consumer.connection, Connection)
    assert consumer.connection.group is None
    await client.set_group(None)
    await client.disconnect()
    assert events == []


async def test_set_group_enters_and_none_leaves(chat, connect, events):
    client = await connect(chat, user_id="ann", info={"colour": "red"})
    group = await client.set_group("room")
    consumer = client.consumer
    assert isinstance(group, ConnectionGroup)
    assert group == get_group("room") == consumer.group
    assert hash(group) == hash(get_group("room"))
    assert consumer.group_name == "room"
    assert consumer.joined_groups == {"room"}
    assert await group.acount() == await group.auser_count() == 1
    assert await group.ausers() == {"ann"}
    assert await group.aexists()
    assert await client.set_group(None) is None
    assert (consumer.group, consumer.joined_groups) == (None, frozenset())
    assert not await group.aexists()
    id = client.id
    assert story(events) == [
        ("created", "room", None),
        ("join", "room", id),
        ("leave", "room", id),
        ("destroyed", "room", None),
    ]
    created, join, leave, destroyed = events
    assert (join.count, join.user_count, join.reason) == (1, 1, None)
    assert (leave.count, leave.user_count, leave.reason) == (0, 0, "left")
    assert created.revision == join.revision < leave.revision == destroyed.revision


async def test_a_member_is_seen_by_everybody(chat, connect):
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    ann = await connect(chat, "room", user_id="ann", info={"colour": "red", "n": 1})
    bob = await connect(chat, "room")
    group = get_group("room")
    assert await members("room") == {ann.id, bob.id}
    seen = await group.aget(ann.id)
    assert seen == ann.consumer.connection and hash(seen) == hash(
        ann.consumer.connection
    )
    assert seen.user_id == "ann"
    assert seen.info == {"colour": "red", "n": 1}
    assert seen.channel_name == ann.consumer.channel_name
    assert before < seen.joined_at < datetime.now(timezone.utc) + timedelta(seconds=1)
    assert seen.group == group
    assert seen.scope is ann.scope
    other = await group.aget(bob.id)
    assert (other.user_id, other.info) == (None, {})
    assert await group.aget("nobody") is None
    assert await group.aget("\ud800") is None
    assert await group.acount() == 2
    assert await group.auser_count() == 1


async def test_the_sync_twins_say_the_same(chat, connect):
    ann = await connect(chat, "room", user_id="ann")
    bob = await connect(chat, "other", user_id="bob")
    await bob.join_group("room")

    def look(consumer=None):
        group, manager = get_group("room"), get_group_manager()
        return {
            "count": group.count(),
            "user_count": group.user_count(),
            "users": group.users(),
            "exists": group.exists(),
            "members": {connection.id for connection in group},
            "get": group.get(ann.id).user_id,
            "nobody": group.get("nobody"),
            "groups": [(one.name, one.count()) for one in manager.groups()],
            "prefixed": [one.name for one in manager.groups("oth")],
            "group_count": manager.group_count(),
            "membership_count": manager.membership_count(),
        }

    seen = await sync_to_async(look)()
    assert seen == {
        "count": 2,
        "user_count": 2,
        "users": {"ann", "bob"},
        "exists": True,
        "members": {ann.id, bob.id},
        "get": "ann",
        "nobody": None,
        "groups": [("room", 2), ("other", 1)],
        "prefixed": ["other"],
        "group_count": 2,
        "membership_count": 3,
    }
    manager = get_group_manager()
    assert [one.name async for one in manager.agroups()] == ["room", "other"]
    assert [one.name async for one in manager.agroups("oth")] == ["other"]
    assert [one async for one in manager.agroups("\ud800")] == []
    assert await manager.agroup_count() == 2
    assert await manager.amembership_count() == 3


@cases("memory-sync", "core-sync", "pubsub-sync")
async def test_a_sync_handler_reads_groups(connect):
    from .chats import SyncChat

    ann = await connect(SyncChat, "room", user_id="ann")

    def look(consumer):
        return [(one.id, one.scope is ann.scope) for one in consumer.group]

    assert await ann.do(look) == [(ann.id, True)]
    assert await ann.do(lambda consumer: consumer.group.count()) == 1


async def test_sync_twins_refuse_to_block_the_event_loop(chat, connect):
    await connect(chat, "room")
    with pytest.raises(RuntimeError, match="async event loop"):
        get_group("room").count()
    with pytest.raises(RuntimeError, match="async event loop"):
        list(get_group("room"))


async def test_moving_joins_first_and_leaves_then(chat, connect, events):
    client = await connect(chat, "a")
    await client.set_group("b")
    assert client.consumer.group_name == "b"
    assert await members("a") == set()
    assert await members("b") == {client.id}
    assert [event.name + " " + event.group.name for event in events] == [
        *("created a", "join a"),
        *("created b", "join b", "leave a", "destroyed a"),
    ]


async def test_set_group_to_where_it_is_does_nothing(chat, connect, events):
    client = await connect(chat, "room")
    group = await client.set_group("room")
    assert group.name == client.consumer.group_name == "room"
    assert await group.acount() == 1
    assert len(events) == 2


async def test_further_groups_stay_when_set_group_moves(chat, connect):
    client = await connect(chat, "a")
    group = await client.join_group("side")
    assert group == get_group("side")
    await client.join_group("side")
    consumer = client.consumer
    assert consumer.group_name == "a"
    assert consumer.joined_groups == {"a", "side"}
    await client.set_group("b")
    assert consumer.joined_groups == {"b", "side"}
    await client.set_group(None)
    assert consumer.joined_groups == {"side"}
    assert await members("side") == {client.id}
    await client.leave_group("side")
    assert consumer.joined_groups == frozenset()
    assert not await group.aexists()


async def test_set_group_to_a_further_group_makes_it_the_current(chat, connect, events):
    client = await connect(chat, "a")
    await client.join_group("b")
    await client.set_group("b")
    assert client.consumer.group_name == "b"
    assert client.consumer.joined_groups == {"b"}
    assert await get_group("b").acount() == 1
    await client.join_group("b")
    await client.set_group("c")
    assert client.consumer.joined_groups == {"c"}
    assert [event.name for event in events].count("join") == 3


async def test_leaving_the_current_group_is_setting_none(chat, connect, events):
    client = await connect(chat, "room")
    await client.leave_group("room")
    assert client.consumer.group is None
    assert client.consumer.joined_groups == frozenset()
    await client.leave_group("room")
    await client.leave_group("never entered")
    assert [event.name for event in events] == [
        *("created", "join", "leave", "destroyed")
    ]


async def test_joined_groups_is_no_handle_on_the_consumer(chat, connect):
    client = await connect(chat, "room")
    assert isinstance(client.consumer.joined_groups, frozenset)


BAD_NAMES = [
    ("", ValueError, "empty"),
    ("x" * 1001, ValueError, "1,000"),
    ("\ud800", ValueError, "Unicode"),
    (5, TypeError, "int"),
    (b"room", TypeError, "bytes"),
]


@pytest.mark.parametrize("name, error, text", BAD_NAMES)
@pytest.mark.parametrize("verb", ["set_group", "join_group", "leave_group"])
@in_memory
async def test_a_bad_name_changes_nothing(
    chat, connect, events, verb, name, error, text
):
    client = await connect(chat, "room")
    with pytest.raises(error, match=text):
        await getattr(client, verb)(name)
    assert client.consumer.group_name == "room"
    assert len(events) == 2
    with pytest.raises(error, match=text):
        get_group(name)


@cases("memory-async")
async def test_what_comes_at_once_is_committed_in_batches(chat, connect, monkeypatch):
    client = await connect(chat)
    for number in range(BATCH):
        await client.join_group(f"room-{number}")
    store, sizes = get_group_manager().store, []
    commit = store.commit

    async def measure(shard, node, sequence, operations, *args, **kwargs):
        sizes.append(len(operations))
        await asyncio.sleep(0)  # As a store that is not in this process.
        return await commit(shard, node, sequence, operations, *args, **kwargs)

    monkeypatch.setattr(store, "commit", measure)
    await client.disconnect()
    assert sum(sizes) == BATCH
    # Each is 1, and a group of its own 2 more.
    assert max(sizes) == math.ceil(BATCH / 3)


@pytest.mark.parametrize("name", ["x" * 1000, "Zürich ☃", "groups.room", "a b", "\x00"])
async def test_names_of_any_kind_work_throughout(chat, connect, name):
    client = await connect(chat, name)
    group = get_group(name)
    assert client.consumer.group_name == group.name == name
    await group.asend("hello")
    assert await client.receive_from() == "hello"
    assert [one.name async for one in get_group_manager().agroups()] == [name]


# Policy


class Policy(GroupManager):
    async def aget_group(self, name, connection):
        assert connection.scope is not None
        if name.startswith("closed"):
            return None
        if name.startswith("old-"):
            return self.group("new-" + name.removeprefix("old-"))
        return self.group(name)


class SyncPolicy(GroupManager):
    def get_group(self, name, connection):
        assert connection.scope["type"] == "websocket"
        if name.startswith("closed"):
            return None
        if name.startswith("old-"):
            return self.group("new-" + name.removeprefix("old-"))
        return self.group(name)

    def max_members(self, group):
        limits = {"small": 1, "nobody": 0, "negative": -1, "huge": 10**30}
        return {**limits, "text": "3", "float": 3.0, "bool": True}.get(group.name)


@pytest.fixture(params=["Policy", "SyncPolicy"])
def policy(request, configure):
    configure(MANAGER=f"{__name__}.{request.param}")


async def test_the_manager_rejects(policy, chat, connect, events):
    client = await connect(chat, "room")
    for verb in (client.set_group, client.join_group):
        with pytest.raises(GroupRejected, match="closed-1"):
            await verb("closed-1")
    assert client.consumer.group_name == "room"
    assert client.consumer.joined_groups == {"room"}
    assert await members("room") == {client.id}
    assert not await get_group("closed-1").aexists()
    assert len(events) == 2


async def test_the_manager_redirects(policy, chat, connect):
    client = await connect(chat, "room")
    group = await client.set_group("old-lobby")
    assert group == get_group("new-lobby")
    assert client.consumer.group_name == "new-lobby"
    assert await members("new-lobby") == {client.id}
    assert not await get_group("old-lobby").aexists()
    assert not await get_group("room").aexists()
    await client.set_group("old-lobby")
    assert await get_group("new-lobby").acount() == 1


async def test_a_rejection_refuses_the_handshake(policy, chat, open_client, events):
    client = open_client(chat, room="closed")
    accepted, _ = await client.connect()
    assert not accepted
    await client.end()
    assert events == []


async def test_a_full_group_refuses_the_handshake(
    chat, connect, open_client, configure
):
    configure(MAX_MEMBERS=1)
    await connect(chat, "room")
    late = open_client(chat, room="room")
    accepted, _ = await late.connect()
    assert not accepted
    await late.end()
    assert await get_group("room").acount() == 1


async def test_a_full_group_keeps_the_connection_where_it_is(
    chat, connect, configure, events
):
    configure(MAX_MEMBERS=2)
    clients = [await connect(chat, "room") for _ in range(2)]
    late = await connect(chat, "other")
    for verb in (late.set_group, late.join_group):
        with pytest.raises(GroupFull, match="room"):
            await verb("room")
    assert late.consumer.group_name == "other"
    assert late.consumer.joined_groups == {"other"}
    await clients[0].disconnect()
    assert (await late.set_group("room")).name == "room"
    assert await members("room") == {clients[1].id, late.id}
    assert not await get_group("other").aexists()
    assert [event.name for event in events].count("join") == 4


async def test_max_members_may_be_overridden(chat, connect, configure):
    configure(MANAGER=f"{__name__}.SyncPolicy", MAX_MEMBERS=50)
    one, two = await connect(chat, "small"), await connect(chat, "large")
    with pytest.raises(GroupFull):
        await two.set_group("small")
    for name in ("nobody", "negative"):
        with pytest.raises(GroupFull):
            await two.set_group(name)
    await one.set_group("large")
    assert await get_group("large").acount() == 2
    await one.set_group("huge")


async def test_a_max_members_that_is_no_number_harms_nobody_else(
    chat, connect, configure, caplog
):
    configure(MANAGER=f"{__name__}.SyncPolicy")
    client = await connect(chat, "room")
    for name, kind in (("text", "str"), ("float", "float"), ("bool", "bool")):
        for verb in (client.set_group, client.join_group):
            with pytest.raises(TypeError, match=rf"max_members\(\) .* not {kind}"):
                await verb(name)
    assert client.consumer.joined_groups == {"room"}
    other = await connect(chat, "room")
    assert await members("room") == {client.id, other.id}
    await client.set_group(None)
    assert await members("room") == {other.id}
    assert "writer" not in caplog.text


async def test_a_consumer_class_may_have_a_manager_of_its_own(chat, connect, events):
    class OwnChat(chat):
        group_manager = Policy()

    client = await connect(OwnChat, "old-lobby")
    assert client.consumer.group_name == "new-lobby"
    assert client.consumer.group.manager is OwnChat.group_manager
    assert client.consumer.group == get_group("new-lobby")
    with pytest.raises(GroupRejected):
        await client.set_group("closed")
    plain = await connect(chat, "closed")
    assert plain.consumer.group_name == "closed"


@in_memory
async def test_the_signals_sender_is_the_managers_class(chat, connect, configure):
    from channels_groups.signals import group_join

    senders = []

    async def receive(sender, **kwargs):
        senders.append(sender)

    group_join.connect(receive)
    try:
        configure(MANAGER=f"{__name__}.Policy")
        await connect(chat, "room")
    finally:
        group_join.disconnect(receive)
    assert senders == [Policy]


@in_memory
async def test_a_manager_of_another_layer_is_refused(
    chat, open_client, settings, layer
):
    """Its groups' messages would go where the consumer does not read."""
    settings.CHANNEL_LAYERS = {
        **settings.CHANNEL_LAYERS,
        **{"other": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    }

    class Astray(chat):
        group_manager = Policy("other")

    client = open_client(Astray, room="room")
    with pytest.raises(ImproperlyConfigured, match="'other'.*'default'"):
        await client.connect()

    class Redirecting(GroupManager):
        async def aget_group(self, name, connection):
            return get_group(name, "other")

    class Redirected(chat):
        group_manager = Redirecting()

    client = open_client(Redirected, room="room")
    with pytest.raises(ImproperlyConfigured, match="'other'.*'default'"):
        await client.connect()
    assert not await get_group("room").aexists()


@cases("core-async", "pubsub-sync")
async def test_a_class_level_manager_stands_behind_all_that_happens(
    chat, told_chat, connect, open_client
):
    """Also behind what other members are told of, and a loss."""

    class OwnChat(chat):
        group_manager = Policy()

    class ToldOwnChat(told_chat):
        group_manager = OwnChat.group_manager

    senders = []

    def receive(sender, signal, group, **kwargs):
        senders.append((sender, type(group.manager), group.name, kwargs.get("reason")))

    for signal in (group_join, group_leave):
        signal.connect(receive, weak=False)
    try:
        async with simulated_process() as other:
            ann = await connect(ToldOwnChat, "room")
            for room in ("room", "alone"):
                client = open_client(OwnChat, room=room)
                client._run = client.application = other.serve(client._run)
                assert (await client.connect())[0]
            await other.kill()
            await aeventually(lambda: len(senders), equals=5, timeout=20)
        await aeventually(lambda: len(ann.left), equals=1)
        changes = [change.group.manager for change in ann.changes]
        assert set(changes) == {OwnChat.group_manager}
    finally:
        for signal in (group_join, group_leave):
            signal.disconnect(receive)
    assert {one[:2] for one in senders} == {(Policy, Policy)}
    assert {one[2:] for one in senders[3:]} == {("room", "lost"), ("alone", "lost")}


# What a connection tells about itself


class User:
    is_authenticated = True

    def __init__(self, pk):
        self.pk = pk


class Nobody:
    is_authenticated = False
    pk = None


@in_memory
@pytest.mark.parametrize(
    "user, user_id", [(User(7), "7"), (User("x"), "x"), (Nobody(), None), (None, None)]
)
async def test_the_user_id_is_the_key_of_who_is_logged_in(
    flavour, connect, user, user_id
):
    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

    from channels_groups.consumers import AsyncGroupConsumerMixin, GroupConsumerMixin

    from .chats import AsyncChat, SyncChat

    mixin = {"async": AsyncGroupConsumerMixin, "sync": GroupConsumerMixin}[flavour]
    base = {"async": AsyncWebsocketConsumer, "sync": WebsocketConsumer}[flavour]
    helper = {"async": AsyncChat, "sync": SyncChat}[flavour]

    class Plain(mixin, base):
        connect, receive = helper.connect, helper.receive

    client = await connect(Plain, "room", user=user)
    [member] = [one async for one in get_group("room")]
    assert (member.user_id, member.info) == (user_id, {})
    await client.disconnect()


@async_only
async def test_async_consumers_may_ask_for_the_facts(connect):
    from .chats import AsyncChat

    class Asking(AsyncChat):
        async def get_group_user_id(self):
            return "ann"

        async def get_group_info(self):
            return {"n": 1}

    await connect(Asking, "room")
    [member] = [one async for one in get_group("room")]
    assert (member.user_id, member.info) == ("ann", {"n": 1})


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


BAD_FACTS = [
    ({"info": {"fine": 1, "bad key": object()}}, TypeError, "bad key"),
    ({"info": {"bad key": {1, 2}}}, TypeError, "bad key"),
    ({"info": {"bad key": float("nan")}}, TypeError, "bad key"),
    ({"info": {("a", "b"): 1}}, TypeError, "'a', 'b'"),
    ({"info": {"x": "y" * 8192}}, ValueError, "8,20"),
    ({"info": [1]}, TypeError, "list"),
    ({"info": None}, TypeError, "NoneType"),
    ({"info": {"deep key": nested(100_000)}}, (TypeError, ValueError), "deep"),
    ({"user_id": 5}, TypeError, "int"),
    ({"user_id": b"ann"}, TypeError, "bytes"),
    ({"user_id": "\ud800"}, ValueError, "Unicode"),
]


@pytest.mark.parametrize("facts, error, text", BAD_FACTS, ids=range(len(BAD_FACTS)))
@cases("memory-async", "core-sync")
async def test_bad_facts_keep_the_connection_where_it_is(
    chat, connect, events, facts, error, text
):
    client = await connect(chat, "room", user_id="ann")
    client.scope.update(facts)
    for verb in (client.set_group, client.join_group):
        with pytest.raises(error, match=text):
            await verb("other")
    assert client.consumer.group_name == "room"
    assert client.consumer.joined_groups == {"room"}
    assert not await get_group("other").aexists()
    assert await members("room") == {client.id}
    assert len(events) == 2
    client.scope.update(user_id="ann", info={})
    await client.set_group("other")


async def test_info_of_8_kib_goes(chat, connect):
    info = {"x": "y" * (8192 - len('{"x": ""}'))}
    client = await connect(chat, "room", info=info)
    assert (await get_group("room").aget(client.id)).info == info


async def test_odd_info_comes_back_as_it_was(told_chat, chat, connect):
    from ..helpers.eventually import aeventually

    listener = await connect(told_chat, "room")
    info = {
        "huge": 2**70,
        "surrogate": "\ud800",
        "deep": nested(600),
        "float": 1e300,
        "nul": "\x00",
    }
    client = await connect(chat, "room", info=info)
    assert (await get_group("room").aget(client.id)).info == info
    await aeventually(lambda: listener.joined)
    assert listener.joined[0][1].info == info

"""What clients are shown of their groups: a state, then every change in order."""

import asyncio
import inspect
import json

import pytest
from channels import consumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    JsonWebsocketConsumer,
)

from channels_groups.consumers import (
    AsyncGroupConsumerMixin,
    AsyncGroupStateConsumerMixin,
    GroupStateConsumerMixin,
)
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group, get_group_manager
from channels_groups.stores.memory import MemoryStore
from channels_groups.testing import simulated_process
from testproject.rooms.consumers import LiveRoomConsumer, RoomConsumer

from ..helpers.eventually import aeventually
from ..helpers.views import View
from .chats import AsyncChat, Client, async_only, cases


class StateClient(Client):
    """A client that keeps what it is shown."""

    def __init__(self, consumer_class, **scope):
        super().__init__(consumer_class, **scope)
        self.shown = []
        self.views = {}

    def keep(self):
        """Take in what has arrived."""
        while not self.output_queue.empty():
            message = self.output_queue.get_nowait()
            if message["type"] == "websocket.send":
                self.take(json.loads(message["text"]))

    def take(self, content):
        self.shown.append(content)
        if content["type"] == "group.left":
            self.views.pop(content["group"], None)
        elif content["type"] != "group.pong":
            self.views.setdefault(content["group"], View()).take(content)

    def view(self, group="room"):
        """Return what it believes of a group."""
        self.keep()
        return self.views.get(group)

    def types(self):
        self.keep()
        return [content["type"] for content in self.shown]

    async def has_received_nothing(self):
        self.keep()
        return await super().has_received_nothing()


class AsyncStateChat(AsyncGroupStateConsumerMixin, AsyncJsonWebsocketConsumer):
    async def connect(self):
        if self.scope["room"] is not None:
            await self.set_group(self.scope["room"])
        await self.accept()

    async def receive(self, text_data=None, **kwargs):
        if text_data != "do":
            return await super().receive(text_data, **kwargs)
        function, succeed, fail = self.scope["client"].take_todo()
        result = function(self)
        succeed(await result if inspect.isawaitable(result) else result)

    async def receive_json(self, content, **kwargs):
        await self.send_json({"type": "echo", "group": "echo", "content": content})

    def get_group_user_id(self):
        return self.scope.get("user_id")

    def get_group_info(self):
        return self.scope.get("info", {})


class SyncStateChat(GroupStateConsumerMixin, JsonWebsocketConsumer):
    def connect(self):
        if self.scope["room"] is not None:
            self.set_group(self.scope["room"])
        self.accept()

    def receive(self, text_data=None, **kwargs):
        if text_data != "do":
            return super().receive(text_data, **kwargs)
        function, succeed, fail = self.scope["client"].take_todo()
        succeed(function(self))

    def receive_json(self, content, **kwargs):
        self.send_json({"type": "echo", "group": "echo", "content": content})

    def get_group_user_id(self):
        return self.scope.get("user_id")

    def get_group_info(self):
        return self.scope.get("info", {})


@pytest.fixture
def state_chat(flavour):
    return {"async": AsyncStateChat, "sync": SyncStateChat}[flavour]


@pytest.fixture
async def open_client(layer):
    clients = []

    def open_client(consumer, **scope):
        clients.append(StateClient(consumer, **scope))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.end()


async def truth(group="room"):
    """Return what the store says, as a View has it."""
    group = get_group(group)
    members = {one.id: (one.user_id, one.info) async for one in group}
    return members, await group.acount(), await group.auser_count()


async def agree(*clients, group="room", timeout=10):
    """Wait until all clients believe what is true."""

    async def differing():
        wanted = await truth(group)
        views = [client.view(group) for client in clients]
        return [view for view in views if view is None or view.facts != wanted]

    await aeventually(differing, equals=[], timeout=timeout)
    return await truth(group)


async def test_a_client_is_shown_the_state_and_then_each_change(state_chat, connect):
    ann = await connect(state_chat, "room", user_id="ann", info={"colour": "red"})
    members, count, user_count = await agree(ann)
    assert (members, count, user_count) == ({ann.id: ("ann", {"colour": "red"})}, 1, 1)
    bob = await connect(state_chat, "room", user_id="bob")
    bob_id = bob.id
    await agree(ann, bob)
    state, change = ann.shown
    assert set(state) == {
        *("type", "group", "revision", "id", "count", "user_count", "members")
    }
    assert set(change) == {
        *("type", "group", "revision", "previous", "joined", "left", "updated"),
        *("count", "user_count"),
    }
    assert change["previous"] == state["revision"] < change["revision"]
    assert change["joined"] == [{"id": bob_id, "user_id": "bob", "info": {}}]
    assert (change["left"], change["updated"]) == ([], [])
    assert bob.types() == ["group.state"]
    await bob.disconnect()
    await agree(ann)
    assert ann.shown[-1]["left"] == [bob_id]
    assert ann.shown[-1]["previous"] == change["revision"]


async def test_a_client_is_told_when_it_is_in_a_group_no_more(state_chat, connect):
    ann, bob = await connect(state_chat, "a"), await connect(state_chat, "b")
    await agree(ann, group="a")
    await ann.set_group("b")
    await agree(ann, bob, group="b")
    await aeventually(lambda: ann.view("a"), equals=None)
    await ann.join_group("c")
    await agree(ann, group="c")
    await ann.leave_group("c")
    await aeventually(lambda: ann.view("c"), equals=None)
    await ann.set_group(None)
    await agree(bob, group="b")
    await aeventually(lambda: ann.view("b"), equals=None)
    types = ann.types()
    assert (types.count("group.state"), types.count("group.left")) == (3, 3)


async def test_an_update_is_shown_as_such(state_chat, connect):
    ann = await connect(state_chat, "room", user_id="ann", info={"mood": "good"})
    bob = await connect(state_chat, "room", user_id="bob")
    await agree(ann, bob)
    await ann.do(lambda consumer: consumer.update_info({"mood": "bad"}))
    members, *_ = await agree(ann, bob)
    assert members[ann.id] == ("ann", {"mood": "bad"})
    for client in (ann, bob):
        [*_, change] = client.shown
        assert (change["joined"], change["left"]) == ([], [])
        assert change["updated"] == [
            {"id": ann.id, "user_id": "ann", "info": {"mood": "bad"}}
        ]


async def test_all_in_a_storm_end_in_the_truth(state_chat, connect):
    watcher = await connect(state_chat, "room")
    others = [await connect(state_chat) for _ in range(5)]

    async def wander(number, client):
        for _ in range(4):
            await client.set_group("room")
            await client.set_group("other" if number % 3 else None)
        if number % 2:
            await client.set_group("room")

    await asyncio.gather(*(wander(*pair) for pair in enumerate(others)))
    members, count, _ = await agree(watcher, *others[1::2])
    assert set(members) == {watcher.id, *(client.id for client in others[1::2])}
    assert [view.gaps for view in watcher.views.values()] == [0]


async def test_a_state_comes_again_to_who_asks(state_chat, connect):
    ann = await connect(state_chat, "room")
    await agree(ann)
    await ann.send_json_to({"type": "group.state", "group": "room"})
    await ann.send_json_to({"type": "group.state", "group": "elsewhere"})
    await ann.send_json_to({"type": "group.state", "group": ["no", "name"]})
    await ann.send_json_to({"type": "hello", "text": '"group.state"'})
    await ann.send_json_to({"type": "group.ping"})
    await aeventually(lambda: ann.types().count("group.state"), equals=2)
    [echo] = [content for content in ann.shown if content["type"] == "echo"]
    assert echo["content"]["type"] == "hello"
    assert "group.pong" in ann.types()
    await agree(ann)


async def test_who_accepts_late_is_shown_the_state_then(flavour, open_client):
    """A handler that runs before the handshake's end sends nothing."""

    class AsyncLate(AsyncStateChat):
        async def connect(self):
            await self.set_group("room")

        async def groups_state(self, message):
            await super().groups_state(message)
            self.scope["handled"].append(message)

        async def late_accept(self, message):
            await self.accept()

    class SyncLate(SyncStateChat):
        def connect(self):
            self.set_group("room")

        def groups_state(self, message):
            super().groups_state(message)
            self.scope["handled"].append(message)

        def late_accept(self, message):
            self.accept()

    late, handled = {"async": AsyncLate, "sync": SyncLate}[flavour], []
    client = open_client(late, room=None, handled=handled)
    connecting = asyncio.create_task(client.connect())
    await aeventually(get_group("room").acount, equals=1)
    [member] = [one async for one in get_group("room")]
    await aeventually(lambda: handled)
    await member.asend_event({"type": "late.accept"})
    assert await connecting == (True, None)
    await agree(client)


@pytest.mark.parametrize("case", ["memory-async", "core-sync"], indirect=True)
async def test_a_large_group_shows_counts_until_it_shrinks(
    state_chat, connect, configure
):
    configure(STATE_LIMIT=10)
    clients = [await connect(state_chat, "room", user_id="ann") for _ in range(10)]
    members, *_ = await agree(*clients)
    assert len(members) == 10
    more = [await connect(state_chat, "room") for _ in range(3)]

    def counts():
        return [(v.members, v.count, v.user_count) for v in map(view, everybody)]

    def view(client):
        return client.view() or View()

    everybody = clients + more
    await aeventually(counts, equals=[(None, 13, 1)] * 13)
    for client in more:
        assert client.shown[0]["members"] is None
    seen = len(clients[0].shown)
    await more.pop().disconnect()  # 12: still too many
    everybody = clients + more
    await aeventually(counts, equals=[(None, 12, 1)] * 12)
    [change] = clients[0].shown[seen:]
    assert (change["joined"], change["left"], change["updated"]) == ([], [], [])
    while more:
        await more.pop().disconnect()
    await clients.pop().disconnect()
    members, *_ = await agree(*clients)  # 9: few enough again
    assert len(members) == 9
    assert [client.view().gaps for client in clients] == [0] * 9


@cases("memory-async", "core-async", "pubsub-sync")
async def test_counts_of_a_large_group_change_at_most_once_a_second(
    state_chat, connect, configure, monkeypatch
):
    monkeypatch.setattr("channels_groups.state.TICK", 0.02)
    configure(STATE_LIMIT=2)
    ann, *_ = [await connect(state_chat, "room") for _ in range(4)]
    dan = await connect(state_chat)
    await aeventually(lambda: ann.view() is not None and ann.view().members is None)
    now = asyncio.get_running_loop().time
    began, seen = now(), len(ann.shown)
    while now() < began + 2.5:
        await dan.set_group("room")
        await asyncio.sleep(0.02)
        await dan.set_group(None)
        await asyncio.sleep(0.02)
    changes = ann.types()[seen:]
    # One that was under way, and one at the beginning of each second.
    assert 1 <= len(changes) <= now() - began + 2
    assert set(changes) == {"group.change"}
    await dan.set_group("room")
    await aeventually(lambda: ann.view().count, equals=5)


@cases("memory-async")
async def test_no_turn_in_the_one_thread_is_taken_for_states(connect, monkeypatch):
    """They come to all members at once."""
    turns, close = [], consumer.aclose_old_connections

    async def count_turns():
        turns.append(1)
        await close()

    ann, bob = await connect(AsyncStateChat, "room"), await connect(AsyncChat)
    await agree(ann)
    monkeypatch.setattr(consumer, "aclose_old_connections", count_turns)
    for name in ["room", None] * 3:
        await bob.set_group(name)
        await agree(ann)
    assert ann.types().count("group.change") == 6
    assert len(turns) == 6  # Of bob's own messages.


@cases("memory-async")
def test_the_page_of_the_demo_is_told_of_changes_once():
    """By states: no change is made for hooks that do nothing."""
    assert RoomConsumer._has_hooks(AsyncGroupConsumerMixin)
    assert not LiveRoomConsumer._has_hooks(AsyncGroupConsumerMixin)


@cases("memory-async")
async def test_a_limit_of_one_lists_who_is_alone_again(state_chat, connect, configure):
    configure(STATE_LIMIT=1)
    ann, bob = [await connect(state_chat, "room") for _ in range(2)]
    await aeventually(lambda: ann.view() and ann.view().count, equals=2)
    assert ann.view().members is None
    await bob.set_group(None)
    await agree(ann)


@cases("memory-async", "core-async")
async def test_an_interval_holds_also_for_what_a_look_finds(
    state_chat, connect, configure, monkeypatch
):
    """A whole state, which a client has asked for, does not wait for it."""
    monkeypatch.setattr("channels_groups.state.TICK", 0.02)
    configure(CHANGE_INTERVAL=1.5)
    ann, bob = await connect(state_chat, "room"), await connect(state_chat)
    await agree(ann)
    now = asyncio.get_running_loop().time
    began, seen = now(), len(ann.shown)
    while now() < began + 3:
        await bob.set_group(None if bob.consumer.group else "room")
        await asyncio.sleep(0.05)
    changes = ann.types()[seen:]
    assert 1 <= len(changes) <= (now() - began) / 1.5 + 1
    await bob.set_group(None if bob.consumer.group else "room")
    asked = now()
    await ann.send_json_to({"type": "group.state", "group": "room"})
    await aeventually(lambda: ann.types().count("group.state"), equals=2)
    assert now() < asked + 1
    await agree(ann)


@cases("memory-async")
async def test_what_nobody_foresaw_ends_no_repair(
    state_chat, connect, monkeypatch, caplog
):
    ann, bob = await connect(state_chat, "room"), await connect(state_chat)
    await agree(ann)
    states, broken = ann.consumer._node.states, asyncio.Event()

    async def fail(*args):
        broken.set()
        raise KeyError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryStore, "summaries", fail)
        await broken.wait()  # A look fails, and then a reading does.
        broken.clear()
        states._groups["room"]._read_soon()
        await broken.wait()
        patched.setattr("channels_groups.state.States.take_own", lambda *args: None)
        await bob.set_group("room")
    await agree(ann, bob)
    said = {record.getMessage() for record in caplog.records}
    assert said == {
        "Groups' states were not compared; it tries again.",
        "The state of group 'room' was not read; it tries again.",
    }


@async_only
async def test_what_may_be_seen_of_whom_is_for_the_consumer_to_say(connect):
    class Discreet(AsyncStateChat):
        async def get_group_member(self, connection):
            if connection.info.get("hidden"):
                return None
            return {"name": connection.user_id, "mine": connection == self.connection}

    ann = await connect(Discreet, "room", user_id="ann")
    await aeventually(ann.view)
    spy = await connect(Discreet, "room", user_id="spy", info={"hidden": True})
    bob = await connect(Discreet, "room", user_id="bob")
    await aeventually(lambda: ann.view() and len(ann.view().members), equals=2)
    await aeventually(lambda: bob.view() and bob.view().count, equals=3)
    assert bob.shown[0]["members"] == [
        {"id": ann.id, "name": "ann", "mine": False},
        {"id": bob.id, "name": "bob", "mine": True},
    ]
    joined = [one for change in ann.shown[1:] for one in change["joined"]]
    assert joined == [{"id": bob.id, "name": "bob", "mine": False}]
    assert ann.view().count == 3
    shown = len(ann.shown)
    await spy.do(lambda consumer: consumer.update_info({"mood": "curious"}))
    await aeventually(lambda: ann.types()[shown:], equals=["group.change"])
    id = spy.id
    await spy.set_group(None)
    await aeventually(lambda: (ann.view().count, bob.view().count), equals=(2, 2))
    assert id not in json.dumps(ann.shown + bob.shown)
    assert len(ann.view().members) == len(bob.view().members) == 2


@cases("memory-async", "memory-sync")
async def test_who_may_be_seen_by_and_by_comes_and_goes(flavour, state_chat, connect):
    class Discreet(state_chat):
        def get_group_member(self, connection):
            hidden = connection.info.get("hidden")
            return None if hidden else {"name": connection.user_id}

    ann = await connect(Discreet, "room", user_id="ann")
    spy = await connect(Discreet, "room", user_id="spy", info={"hidden": True})
    await aeventually(lambda: ann.view() and ann.view().count, equals=2)
    for hidden, key in [(False, "joined"), (True, "left"), (False, "joined")]:
        shown = len(ann.shown)
        await spy.do(lambda consumer, to=hidden: consumer.update_info({"hidden": to}))
        await aeventually(lambda: ann.types()[shown:], equals=["group.change"])
        told = {one: ann.shown[-1][one] for one in ("joined", "left", "updated")}
        entry = spy.id if hidden else {"id": spy.id, "name": "spy"}
        assert told == {"joined": [], "left": [], "updated": [], key: [entry]}
    id = spy.id
    await spy.set_group(None)
    await aeventually(lambda: ann.view().count, equals=1)
    assert ann.shown[-1]["left"] == [id]


@pytest.fixture
def lossy(layer):
    """Let the layer lose or hold back some of the library's changes."""

    class Lossy:
        lose = False
        held = None

    lossy, group_send = Lossy(), layer.group_send

    async def unreliable(group, message):
        if message["type"] == "groups.change":
            if lossy.lose:
                return
            if lossy.held is not None:
                lossy.held.append((group, message))
                return
        await group_send(group, message)

    layer.group_send = unreliable
    lossy.group_send = group_send
    yield lossy
    del layer.group_send


async def test_changes_that_are_lost_are_read(state_chat, connect, lossy, monkeypatch):
    """As between processes: what this node commits itself it does not forget."""
    monkeypatch.setattr("channels_groups.state.States.take_own", lambda *args: None)
    ann, bob = await connect(state_chat, "room"), await connect(state_chat, "room")
    await agree(ann, bob)
    lossy.lose = True
    cat, dan = await connect(state_chat, "room"), await connect(state_chat, "room")
    lossy.lose = False
    await bob.disconnect()  # What is missing before it is noticed by this.
    await agree(ann, cat, dan)
    lossy.lose = True
    await cat.disconnect()
    eve = await connect(state_chat, "room")
    await agree(ann, dan, eve)  # By nothing but a look at the store.
    assert [client.view().gaps for client in (ann, dan, eve)] == [0, 0, 0]


@cases("memory-async")
async def test_what_happened_while_nobody_was_told_is_read(
    connect, open_client, monkeypatch
):
    """As many have come as have gone while the only ones who are told were evicted."""
    cat = await connect(AsyncChat, "room", user_id="cat")
    dan = await connect(AsyncChat, None, user_id="dan")
    async with simulated_process() as other:
        ann = open_client(AsyncStateChat, room="room", user_id="ann")
        ann.application = other.serve(ann.application)
        assert await ann.connect() == (True, None)
        await agree(ann)
        mine, theirs = cat.consumer._node, ann.consumer._node
        evicted = theirs._shards[0]._writer.incarnation
        back = asyncio.Event()
        show, summaries = theirs.states.enter, MemoryStore.summaries

        def enter(membership):
            show(membership)
            back.set()

        async def look(*args):
            """Let nobody look until the member is there again."""
            if not back.is_set():
                raise StoreUnavailable
            return await summaries(*args)

        monkeypatch.setattr(theirs.states, "enter", enter)
        monkeypatch.setattr(MemoryStore, "summaries", look)
        store = get_group_manager().store
        monkeypatch.setattr(store._nodes[evicted.id], "deadline", -1)
        await mine._shards[0]._writer.evict([evicted.id])
        await cat.set_group(None)
        await dan.set_group("room")
        await asyncio.wait_for(back.wait(), 10)
        await agree(ann)
        assert ann.view().gaps == 0
        await ann.end()


async def test_changes_out_of_order_are_put_in_order(
    state_chat, connect, lossy, configure, monkeypatch
):
    configure(CHANGE_INTERVAL=0)
    monkeypatch.setattr("channels_groups.state.States.take_own", lambda *args: None)
    monkeypatch.setattr("channels_groups.state.PATIENCE", 60)
    ann, bob = await connect(state_chat, "room"), await connect(state_chat)
    await agree(ann)
    lossy.held = []
    for _ in range(3):
        await bob.set_group("room")
        await bob.set_group(None)
    await bob.set_group("room")
    await aeventually(lambda: len(lossy.held), equals=7)
    for group, message in reversed(lossy.held + lossy.held[2:4]):
        await lossy.group_send(group, message)
    lossy.held = None
    await agree(ann)
    assert ann.view().gaps == 0


@pytest.fixture
def short_pages(kind, server, monkeypatch):
    """Let the stores list members by a few."""
    monkeypatch.setattr("channels_groups.stores.memory.PAGE", 2)
    if kind == "memory":
        yield
        return
    store = get_group_manager().store
    read = store.node_members
    monkeypatch.setattr(store, "node_members", lambda *args: read(*args, size=2))
    # A small hash would be listed at once. The name is that of Redis 6, too.
    name = "hash-max-ziplist-entries"
    with server.client() as client:
        before = client.config_get(name)[name]
        client.config_set(name, 1)
        yield
        client.config_set(name, before)


@cases("memory-async", "core-async", "pubsub-sync")
async def test_what_was_listed_under_churn_becomes_right(
    state_chat, connect, monkeypatch, short_pages
):
    """Members who come and go between the pages of a long list."""
    store = get_group_manager().store
    others = [await connect(state_chat, "room") for _ in range(30)]
    outside = [await connect(state_chat) for _ in range(3)]
    pages = []
    read = store.members

    async def members(group, cursor):
        page = await read(group, cursor)
        if len(pages) < 3:
            pages.append(page)
            await outside[len(pages) - 1].set_group(group)
            await others[len(pages) - 1].set_group(None)
        return page

    monkeypatch.setattr(store, "members", members)
    [state] = [state for state in others[0].consumer._node.states._groups.values()]
    state._read_soon()
    await aeventually(lambda: len(pages), equals=3)
    assert all(cursor for _, cursor in pages), "it was listed at once"
    await agree(*others[3:], *outside)


async def test_a_client_that_reads_late_is_shown_the_difference(state_chat, connect):
    """While its handler is busy, nothing heaps up."""
    ann, bob = await connect(state_chat, "room"), await connect(state_chat)
    await agree(ann)
    go_on = asyncio.Event()

    def wait(consumer):
        if isinstance(consumer, AsyncStateChat):
            return go_on.wait()

    busy = asyncio.create_task(ann.do(wait))
    for _ in range(10):
        await bob.set_group("room")
        await bob.set_group(None)
    await bob.set_group("room")
    go_on.set()
    await busy
    await agree(ann, bob)
    assert ann.view().gaps == 0

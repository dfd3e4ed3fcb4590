"""Leaving costs the others nothing, even where the layer's receive() is cancelled."""

import asyncio
from collections import defaultdict
from contextlib import contextmanager

import pytest
import redis
from channels_redis.pubsub import RedisSingleShardConnection

from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group
from channels_groups.receiver import (
    Receiver,
    StopReceiving,
    find_strays,
    give_up,
    give_up_stray,
)
from channels_groups.relay import end_receiver

from ..helpers import layers
from ..helpers.eventually import aeventually
from ..helpers.timeouts import timeout
from .chats import AsyncChat, async_only, cases


@pytest.fixture
def server(request, kind):
    """A server of the test's own where it has a proxy in front of it."""
    if "proxy" not in request.fixturenames:
        return None if kind == "memory" else request.getfixturevalue("seasoned_redis")
    server = request.getfixturevalue("own_redis")
    layers.wait_until_seasoned(server)
    return server


@pytest.fixture
def address(request, server):
    """Through the proxy, so that an answer of the server can be long on its way."""
    if "proxy" in request.fixturenames:
        return request.getfixturevalue("proxy").url
    return server and server.url


@contextmanager
def watched(server):
    """Return a function that tells whether the server has handed out a message."""
    with server.client() as client:
        client.config_set("notify-keyspace-events", "Ez")
        with client.pubsub(ignore_subscribe_messages=True) as watch:
            watch.subscribe("__keyevent@0__:zpopmin")
            watch.get_message(timeout=5)
            yield watch.get_message


@cases("core-async")
async def test_who_leaves_takes_no_message_of_others_along(connect, proxy, server):
    """They go while a message for one who stays is on its way to the process."""
    stays = await connect(AsyncChat, "room")
    leavers = [await connect(AsyncChat) for _ in range(12)]
    for number in range(8):  # By turns, somebody else reads what comes next.
        await get_group("room").asend(str(number))
        assert await stays.receive_from() == str(number)
    proxy.delay(80)
    with watched(server) as popped:
        sending = asyncio.create_task(get_group("room").asend("hello"))
        await aeventually(popped)
    for leaver in leavers:
        leaver.input_queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await sending
    proxy.delay(0)
    assert await stays.receive_from() == "hello"


@cases("core-async")
async def test_channels_redis_core_still_works_as_the_receiver_expects(layer):
    """Who reads for one channel puts aside what is for the others of the process."""
    one, two = await layer.new_channel(), await layer.new_channel()
    await layer.send(two, {"type": "for two"})
    await layer.send(one, {"type": "for one"})
    assert await layer.receive(one) == {"type": "for one"}
    assert layer.receive_buffer[two].get_nowait() == {"type": "for two"}
    assert type(layer.receive_buffer) is defaultdict
    layer.receive_buffer.clear()
    await layer.wait_received()


@cases("pubsub-async")
async def test_channels_redis_pubsub_still_works_as_find_strays_expects(
    layer, proxy, server, prefix
):
    """It keeps what it could not give up, in its shards or in redis-py's PubSub."""
    one, two = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("room", one)
    await layer.group_add("hall", two)
    assert find_strays(layer) == ([], [])
    proxy.refuse()
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        await layer.group_discard("room", one)
    await give_up(layer, one)
    assert find_strays(layer) == ([one], ["room"])
    proxy.heal()

    def subscribed():
        return sorted(layers.subscriptions_of(server, prefix))

    rooms = [f"{prefix}__group__{name}" for name in ("room", "hall")]
    await aeventually(subscribed, equals=sorted([one, two, *rooms]))
    await give_up_stray(layer, one)
    await layer.group_add("room", two)
    await layer.group_discard("room", two)
    await aeventually(subscribed, equals=sorted([two, rooms[1]]))
    assert find_strays(layer) == ([], [])

    # The layer has given these up; redis-py never hears an answer to that.
    proxy.drop()
    await layer.group_discard("hall", two)
    await give_up(layer, two)
    assert find_strays(layer) == ([], [])
    proxy.cut()
    proxy.heal()
    await aeventually(lambda: find_strays(layer), equals=([two], ["hall"]))
    three = await layer.new_channel()
    await layer.group_add("hall", three)
    await layer.group_discard("hall", three)
    await give_up(layer, three)
    await give_up_stray(layer, two)
    await aeventually(subscribed, equals=[])
    assert find_strays(layer) == ([], [])


@cases("pubsub-async")
async def test_nothing_is_remembered_of_a_stray_that_could_not_be_given_up(
    layer, connect, monkeypatch
):
    """channels_redis.pubsub takes a channel into a group before it subscribes."""
    client = await connect(AsyncChat, "room")
    [shard] = client.consumer._node._shards
    before = dict(layer._get_layer().groups)

    async def fail(self, channel):
        raise redis.ConnectionError

    async def hang(self, channel):
        await asyncio.sleep(3600)

    relay = shard._writer._relay
    with monkeypatch.context() as patch:
        patch.setattr(RedisSingleShardConnection, "subscribe", fail)
        with pytest.raises(StoreUnavailable):
            await relay._give_up_stray_group("hall")
        assert layer._get_layer().groups == before
        patch.setattr(RedisSingleShardConnection, "subscribe", hang)
        giving_up = asyncio.create_task(relay._give_up_stray_group("hall"))
        await aeventually(lambda: layer._get_layer().groups != before)
        giving_up.cancel()
        await asyncio.wait([giving_up])
        assert giving_up.cancelled()
    assert layer._get_layer().groups == before


class SlowLayer:
    """A layer that takes a while for each message, and must not be cancelled then."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.cancelled = 0

    async def send(self, channel, message):
        self.queue.put_nowait(message)

    async def receive(self, channel):
        message = await self.queue.get()
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return message


@cases("memory-async")
async def test_a_receiver_ends_after_what_came_before_its_end(monkeypatch):
    """However long that takes: else core would leave a key behind."""
    layer, handled = SlowLayer(), []

    def handle(message):
        if message["type"] == "groups.stop":
            raise StopReceiving
        handled.append(message["type"])

    monkeypatch.setattr("channels_groups.relay.TIMEOUT", 0.5)
    receiver = Receiver(layer, "channel", handle)
    for number in range(20):
        await layer.send("channel", {"type": str(number)})
    await end_receiver(layer, receiver)
    assert handled == [str(number) for number in range(20)]
    assert layer.cancelled == 0


@cases("memory-async")
async def test_a_receiver_whose_end_was_lost_is_cancelled(monkeypatch):
    layer = SlowLayer()

    async def lose(channel, message):
        """As a server that is emptied."""

    monkeypatch.setattr("channels_groups.relay.TIMEOUT", 0.5)
    receiver = Receiver(layer, "channel", print)
    await layer.send("channel", {"type": "first"})
    monkeypatch.setattr(layer, "send", lose)
    async with timeout(20):
        await end_receiver(layer, receiver)
    assert layer.queue.empty()


@cases("memory-async", "core-async", "pubsub-async")
async def test_a_receiver_that_never_began_gives_its_channel_up(layer, kind):
    channel = await layer.new_channel()
    receiver = Receiver(layer, channel, print)
    await receiver.stop()


@cases("memory-async", "core-async", "pubsub-async")
async def test_a_receiver_that_was_told_to_stop_gives_its_channel_up(layer):
    heard = []

    def handle(message):
        heard.append(message["type"])
        if message["type"] == "stop":
            raise StopReceiving

    channel = await layer.new_channel()
    receiver = Receiver(layer, channel, handle)
    for kind in ("one", "two", "stop"):
        await layer.send(channel, {"type": kind})
    assert await receiver.wait(5)
    assert heard == ["one", "two", "stop"]
    await receiver.stop()


@cases("memory-async", "core-async", "pubsub-async")
async def test_a_receiver_goes_on_after_an_error_of_its_handler(layer, caplog):
    heard = asyncio.Event()

    def handle(message):
        if message["type"] == "bad":
            raise LookupError("a handler's mistake")
        heard.set()

    channel = await layer.new_channel()
    receiver = Receiver(layer, channel, handle)
    await layer.send(channel, {"type": "bad"})
    await layer.send(channel, {"type": "good"})
    await asyncio.wait_for(heard.wait(), 5)
    assert "a handler's mistake" in caplog.text
    await receiver.stop()


@cases("core-async")
async def test_receivers_beside_another_hear_what_is_theirs(layer):
    heard = []

    def listen(name):
        return lambda message: heard.append((name, message["n"]))

    main = Receiver(layer, await layer.new_channel(), listen("main"))
    channels = [await layer.new_channel() for _ in range(3)]
    several = [
        Receiver(layer, channel, listen(name), beside=True)
        for name, channel in zip("abc", channels)
    ]
    for n in range(3):
        for channel in [*channels, main.channel]:
            await layer.send(channel, {"type": "x", "n": n})
    await aeventually(lambda: len(heard) == 12)
    for name in ["a", "b", "c", "main"]:
        assert [n for who, n in heard if who == name] == [0, 1, 2]
    for receiver in [*several, main]:
        await receiver.stop()
    assert not layer.receive_buffer.keys() & set(channels)


@async_only
async def test_slow_clients_time_out_each_for_itself(connect, configure):
    """Their middleware's timeout is around a send that a receiver has begun."""
    configure(CHANGE_INTERVAL=0)
    clients = [await connect(HurriedChat, "room", client_reads=True) for _ in range(6)]
    slow = clients[1], clients[2], clients[4]
    for client in slow:
        client.scope["client_reads"] = False
    group = get_group("room")
    for number in range(3):
        await group.asend(str(number))
    for client in set(clients).difference(slow):
        assert await client.frames(3) == ["0", "1", "2"]
    await aeventually(lambda: [one.timeouts for one in slow], equals=[3, 3, 3])
    for client in slow:
        client.scope["client_reads"] = True
    await group.asend("again")
    for client in clients:
        assert await client.receive_from() == "again"
    assert [one.timeouts for one in clients] == [0, 3, 3, 0, 3, 0]


class HurriedChat(AsyncChat):
    """A consumer under a middleware that gives its client 50 ms for a frame."""

    async def __call__(self, scope, receive, send):
        scope["client"].timeouts = 0

        async def hurried_send(message):
            try:
                async with timeout(0.05):
                    if not scope["client_reads"]:
                        await asyncio.Event().wait()
                    await send(message)
            except asyncio.TimeoutError:
                scope["client"].timeouts += 1

        return await super().__call__(scope, receive, hurried_send)

"""Consumers in one process, on every layer, of which nothing may be left."""

import asyncio

import pytest
from channels.layers import get_channel_layer

from channels_groups import node, shutdown
from channels_groups.testing import capture_group_events

from ..helpers import layers
from ..helpers.eventually import aeventually
from .chats import AsyncChat, AsyncToldChat, Client, SyncChat, SyncToldChat

BACKENDS = {"core": layers.CORE, "pubsub": layers.PUBSUB}


@pytest.fixture(scope="session")
def seasoned_redis(redis_server):
    layers.wait_until_seasoned(redis_server)
    return redis_server


@pytest.fixture(params=["memory-sync", "core-async", "core-sync", "pubsub-async"])
def case(request):
    """The channel layer's kind and the consumers' flavour."""
    return request.param


@pytest.fixture
def kind(case):
    return case.partition("-")[0]


@pytest.fixture
def flavour(case):
    return case.partition("-")[2]


@pytest.fixture
def server(request, kind):
    return None if kind == "memory" else request.getfixturevalue("seasoned_redis")


@pytest.fixture
def address(server):
    """Where the layer finds its server; to be overridden."""
    return server and server.url


@pytest.fixture
def layer_config():
    """Further keys of the layer's CONFIG; to be overridden."""
    return {}


@pytest.fixture(autouse=True)
async def layer(kind, server, address, prefix, settings, layer_config):
    """A channel layer; after the test nothing of the library is left on it."""
    if kind == "memory":
        settings.CHANNEL_LAYERS = layers.memory_layer(**layer_config)
    else:
        settings.CHANNEL_LAYERS = layers.redis_layer(
            BACKENDS[kind], address, prefix, **layer_config
        )
    settings.CHANNELS_GROUPS = {"default": {"CHANGE_INTERVAL": 0.05}}
    layer = get_channel_layer()
    yield layer
    await check_nothing_left(kind, layer, server, prefix)
    await close(layer)
    await aeventually(other_tasks, equals=[], timeout=3)


async def check_nothing_left(kind, layer, server, prefix):
    await aeventually(our_tasks, equals=[], timeout=5)
    assert not node._nodes
    assert not shutdown._nodes
    if kind == "memory":
        assert (layer.channels, layer.groups) == ({}, {})
        return
    await aeventually(lambda: lasting_keys(server, prefix), equals=[], timeout=3)
    await aeventually(
        lambda: layers.subscriptions_of(server, prefix), equals=[], timeout=3
    )
    if kind == "pubsub":
        loop_layer = layer._get_layer()
        assert loop_layer.groups == {}
        # Its own new_channel(), if cancelled, leaves a queue without a subscription.
        subscribed = set().union(*(one._subscribed_to for one in loop_layer._shards))
        assert not subscribed


def lasting_keys(server, prefix):
    """Return the keys but the last answer of an evicted node, which expires."""
    keys = layers.keys_of(server, prefix)
    return [key for key, ttl in keys.items() if ":answer:" not in key or ttl < 0]


async def close(layer):
    """Close what a layer keeps for this event loop."""
    if hasattr(layer, "close_pools"):
        await layer.close_pools()
    else:
        await layer.flush()


def other_tasks():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def our_tasks():
    """Return the tasks that are not the pub/sub layer's own."""
    return [
        task for task in other_tasks() if "_do_receiving" not in repr(task.get_coro())
    ]


@pytest.fixture
def configure(settings, layer):
    """Return a function that sets keys of CHANNELS_GROUPS."""

    def configure(**keys):
        config = {**settings.CHANNELS_GROUPS["default"], **keys}
        settings.CHANNELS_GROUPS = {"default": config}

    return configure


@pytest.fixture
def chat(flavour):
    """A consumer class of each flavour."""
    return {"async": AsyncChat, "sync": SyncChat}[flavour]


@pytest.fixture
def told_chat(flavour):
    """A consumer class that is told of changes, of each flavour."""
    return {"async": AsyncToldChat, "sync": SyncToldChat}[flavour]


@pytest.fixture
async def open_client(layer):
    """Return a function that makes clients, which are closed when the test ends."""
    clients = []

    def open_client(consumer, **scope):
        clients.append(Client(consumer, **scope))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.end()


@pytest.fixture
def connect(open_client):
    """Return a function that connects clients."""

    async def connect(consumer, room=None, **scope):
        client = open_client(consumer, room=room, **scope)
        assert await client.connect() == (True, None)
        return client

    return connect


@pytest.fixture
def events(layer):
    """All signals of the test."""
    with capture_group_events() as events:
        yield events

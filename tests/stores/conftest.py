"""One store of each kind, and what a test does with it."""

import pytest
from channels.layers import get_channel_layer

from channels_groups.stores import make_store
from channels_groups.stores.memory import MemoryStore

from ..helpers import layers
from ..helpers.server import RedisServer, ServerMissing, find_server
from .lab import Clock, Lab

BACKENDS = {"core": layers.CORE, "pubsub": layers.PUBSUB}
KINDS = ["memory", "core", "pubsub", "core-sealed", "core-redis7", "pubsub-redis7"]


@pytest.fixture(scope="session")
def seasoned_redis(redis_server):
    layers.wait_until_seasoned(redis_server)
    return redis_server


@pytest.fixture(scope="session")
def redis7():
    """Debian's server, where it is there."""
    try:
        server = RedisServer(find_server("redis"))
    except ServerMissing as error:
        pytest.skip(str(error))
    with server:
        layers.wait_until_seasoned(server)
        yield server


@pytest.fixture(scope="session")
def second_redis():
    with RedisServer() as server:
        layers.wait_until_seasoned(server)
        yield server


@pytest.fixture
def kind(request):
    return getattr(request, "param", "core")


@pytest.fixture
def server(request, kind):
    if kind == "memory":
        return None
    return request.getfixturevalue("redis7" if "redis7" in kind else "seasoned_redis")


@pytest.fixture
async def lab(kind, server, prefix, settings):
    """A store with nothing in it, which has to be left so."""
    if server is None:
        clock = Clock()
        lab = Lab(MemoryStore("default", None, clock), clock=clock)
    else:
        config = {"symmetric_encryption_keys": ["secret"]} if "sealed" in kind else {}
        backend = BACKENDS[kind.partition("-")[0]]
        settings.CHANNEL_LAYERS = layers.redis_layer(
            backend, server.url, prefix, **config
        )
        store = make_store("default", get_channel_layer())
        lab = Lab(store, server=server, prefix=prefix)
    lab.store.attach()
    try:
        yield lab
        await lab.leave_nothing()
    finally:
        await lab.store.detach()
        if server is not None:
            await close(get_channel_layer())


async def close(layer):
    """Close what a layer keeps for this event loop."""
    if hasattr(layer, "close_pools"):
        await layer.close_pools()
    else:
        await layer.flush()

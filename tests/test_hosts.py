"""Hosts as users may give them: through Sentinel, and with redis-py's own timeouts."""

import gc

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator

from channels_groups.consumers import AsyncGroupConsumerMixin
from channels_groups.manager import get_group

from .helpers import layers
from .helpers.eventually import aeventually
from .helpers.sentinel import Sentinel

both_layers = pytest.mark.parametrize("backend", [layers.CORE, layers.PUBSUB])


class Echo(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    async def connect(self):
        await self.set_group("room")
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await self.group.asend(text_data)


@pytest.fixture
async def use_hosts(settings, prefix):
    """Return a function that configures a layer with these hosts."""

    def use_hosts(backend, *hosts):
        config = {"hosts": list(hosts), "prefix": prefix}
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}

    yield use_hosts
    layer = get_channel_layer()
    await (layer.close_pools if hasattr(layer, "close_pools") else layer.flush)()
    gc.collect()


@pytest.fixture
def sentinel(redis_server, tmp_path):
    """Return the port of a Sentinel that watches the shared server."""
    with Sentinel(redis_server, tmp_path) as sentinel:
        yield sentinel.port


async def echo_works():
    client = WebsocketCommunicator(Echo.as_asgi(), "/")
    assert (await client.connect(timeout=10))[0]
    assert await get_group("room").acount() == 1
    await client.send_to("hello")
    assert await client.receive_from(timeout=10) == "hello"
    return client


# Sentinel of redis-py leaves its own clients to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@both_layers
async def test_sentinel_is_passed_through(use_hosts, sentinel, backend):
    address = [("127.0.0.1", sentinel)]
    use_hosts(backend, {"sentinels": address, "master_name": "main"})
    client = await echo_works()
    await client.disconnect()
    assert await get_group("room").acount() == 0


@both_layers
async def test_idle_consumer_outlives_the_timeout_of_its_client(
    use_hosts, redis_url, backend
):
    """As with redis-py 8, where a client gives up sooner than the layer's pop."""
    use_hosts(backend, {"address": redis_url, "socket_timeout": 2})
    client = await echo_works()
    assert await client.receive_nothing(timeout=5, interval=0.1)

    async def is_heard():
        # What is popped for a client that has just given up is lost.
        await client.send_to("still here")
        return not await client.receive_nothing(timeout=1)

    await aeventually(is_heard)
    await client.disconnect()

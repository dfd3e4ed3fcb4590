"""The demo on each channel layer, for the tests that do it no harm."""

import asyncio
import socket

import pytest

from tests.helpers.client import connect
from tests.helpers.cluster import Cluster
from tests.helpers.events import violations
from tests.helpers.eventually import eventually

from .laboratory import APPLICATION, ENV


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "storm: takes minutes; to be left out by -m 'not storm'"
    )


@pytest.fixture(scope="module", params=["core", "pubsub", "memory"])
def demo(request, redis_server, tmp_path_factory):
    """A daphne and a uvicorn for all tests; for memory one server is the cluster."""
    directory, layer = tmp_path_factory.mktemp("demo"), request.param
    env = {"CHANNEL_PREFIX": f"demo-{layer}"}
    with Cluster(redis_server.url, directory, layer=layer, env=env) as cluster:
        cluster.start("daphne", *(["uvicorn"] if layer != "memory" else []))
        # Nobody is let in while a Redis has only just started.
        eventually(lambda: asyncio.run(lets_in(cluster.nodes[0])))
        yield cluster
        for node in cluster.nodes:
            node.terminate()
        assert violations(cluster.events(), ended=True) == []
        assert cluster.complaints() == []


@pytest.fixture
def nodes(demo):
    """Two nodes to connect to, which are the same one on the memory layer."""
    return demo.nodes[0], demo.nodes[-1]


@pytest.fixture
def room(request):
    """A room of the test's own."""
    return f"room of {request.node.name}"


async def lets_in(node):
    """Whether one can enter."""
    try:
        async with connect(node, "any room", "first"):
            return True
    except AssertionError:  # closed without a welcome
        return False


@pytest.fixture(params=["core", "pubsub"])
def cluster(request, own_redis, tmp_path):
    """A cluster of the demo with a short lease, on its own server, to be harmed."""
    with Cluster(
        own_redis.url,
        tmp_path,
        layer=request.param,
        env=ENV,
        application=APPLICATION,
    ) as cluster:
        yield cluster


@pytest.fixture
def unused_tcp_port():
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]

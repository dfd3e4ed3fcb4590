"""What channels_groups.metrics counts, and that nobody else needs Prometheus."""

import os
import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest
from asgiref.sync import sync_to_async

from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group_manager
from channels_groups.meters import METERS
from channels_groups.testing import (
    capture_group_events,
    isolated_groups,
    simulated_process,
)

from ..consumers.chats import AsyncChat, Client
from ..helpers.eventually import aeventually

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def groups():
    async with isolated_groups(LEASE=1, OUTBOX=3) as groups:
        yield groups


@pytest.fixture
def registry(groups):
    from channels_groups import metrics

    registry = prometheus_client.CollectorRegistry()
    metrics.register(registry)
    metrics.register(registry)
    yield registry
    METERS.clear()


@pytest.fixture
def value(registry):
    """Return a function that reads a metric."""

    def value(name, **labels):
        labels = {"alias": "default", **labels}
        return registry.get_sample_value(f"channels_groups_{name}", labels)

    return value


@pytest.fixture
async def connect(groups):
    clients = []

    async def connect(room, process=None):
        client = Client(AsyncChat, room=room, user_id=room)
        if process:
            client.application = process.serve(client._run)
        clients.append(client)
        await client.connect()
        return client

    yield connect
    for client in clients:
        await client.end()


async def test_what_happens_is_counted(value, connect):
    ann, bob = await connect("one"), await connect("one")
    await ann.set_group("two")
    await bob.do(lambda consumer: consumer.update_info({"a": 1}))
    await ann.set_group(None)
    await bob.disconnect()
    assert value("joins_total") == 3
    assert value("updates_total") == 1
    assert value("created_total") == value("destroyed_total") == 2
    assert value("leaves_total", reason="left") == 2
    assert value("leaves_total", reason="disconnected") == 1
    assert value("batch_size_sum") >= 7
    assert 0 < value("batch_size_count") <= value("batch_size_sum")
    commits = value("store_seconds_count", operation="commit")
    assert commits == value("batch_size_count")
    assert value("store_seconds_sum", operation="renew") > 0


async def test_totals_are_read_at_the_scrape(value, connect):
    await connect(None)
    await connect("one")
    await connect("two")
    for read in (value, sync_to_async(value)):
        found = [read(name) for name in ("groups", "memberships", "connections")]
        found = [await one if hasattr(one, "__await__") else one for one in found]
        assert found == [2, 2, 3]


async def test_a_store_that_is_away_does_not_spoil_the_scrape(value, connect):
    await connect("one")
    store = get_group_manager().store
    right = store.renew, store.group_count

    async def fail(*args):
        raise StoreUnavailable

    store.renew = store.group_count = fail
    where = {"shard": "0"}
    await aeventually(lambda: value("outages_total", **where))
    assert value("store_unavailable", **where) == 1
    assert value("groups") is None
    assert value("connections") == 1
    store.renew, store.group_count = right
    await aeventually(lambda: value("store_unavailable", **where) == 0)
    assert value("outages_total", **where) == 1
    assert value("groups") == 1


async def test_a_layer_for_other_things_does_not_spoil_the_scrape(value, settings):
    layers = {**settings.CHANNEL_LAYERS}
    layers["jobs"] = {"BACKEND": "channels.layers.BaseChannelLayer"}
    settings.CHANNEL_LAYERS = layers
    assert (value("groups"), value("connections")) == (0, 0)


async def test_lost_processes_and_slow_clients_are_counted(value, connect, groups):
    ann = await connect("one")
    async with simulated_process() as other:
        await connect("one", other)
        with capture_group_events() as events:
            await other.kill()
            groups.clock.advance(2)
            await events.await_for("leave", reason="lost")
    assert value("leaves_total", reason="lost") == 1
    await aeventually(lambda: value("evictions_total") == 1)
    connection = ann.consumer._connection
    for number in range(4):
        connection.put({"type": "chat.note", "text": number})
    assert value("slow_connections_closed_total") == 1


def test_a_registration_that_failed_can_be_repeated(groups):
    from channels_groups import metrics

    registry = prometheus_client.CollectorRegistry()
    other = prometheus_client.Gauge("channels_groups_groups", "Other.", registry=None)
    registry.register(other)
    with pytest.raises(ValueError, match="channels_groups_groups"):
        metrics.register(registry)
    assert METERS == []
    registry.unregister(other)
    assert list(registry.collect()) == []
    metrics.register(registry)
    try:
        found = {metric.name for metric in registry.collect()}
    finally:
        METERS.clear()
    assert {"channels_groups_joins", "channels_groups_groups"} <= found


async def test_names_of_groups_are_no_labels(registry, connect):
    client = await connect("secret room")
    for number in range(20):
        await client.set_group(f"secret room {number}")
    text = prometheus_client.generate_latest(registry).decode()
    assert "channels_groups_joins_total" in text
    assert "secret" not in text
    labels = {
        label
        for family in registry.collect()
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {"alias", "reason", "shard", "operation", "le"}


def test_nothing_else_imports_prometheus():
    code = (
        "import sys, django; django.setup(); import channels_groups.consumers, "
        "channels_groups.testing; from channels_groups.meters import METERS; "
        "sys.exit('prometheus_client' in sys.modules or bool(METERS))"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "testproject.settings"}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment)
    assert done.returncode == 0

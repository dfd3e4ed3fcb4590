"""A channel layer that nobody here knows, with the memberships in a database."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db import connections

from channels_groups.manager import get_group
from channels_groups.stores import DATABASE

from ..helpers import databases
from ..helpers.databases import Database
from ..helpers.eventually import aeventually
from .chats import cases
from .conftest import other_tasks


class ForeignLayer(InMemoryChannelLayer):
    """Discards by sync code in Django's thread for it, as channels_postgres does.

    And it drops what is sent to a channel before somebody reads that.
    """

    discarded = 0
    opened = None

    async def group_discard(self, group, channel):
        await sync_to_async(self.discard)()
        await super().group_discard(group, channel)

    def discard(self):
        self.discarded += 1
        with connections[self.opened].cursor() as cursor:
            cursor.execute("SELECT 1")

    async def send(self, channel, message):
        if channel in self.channels:
            await super().send(channel, message)


@pytest.fixture(autouse=True)
async def layer(settings, tmp_path, django_db_blocker):
    """The layer, on whose store nothing is left."""
    backend = f"{__name__}.ForeignLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    settings.CHANNELS_GROUPS = {"default": {"STORE": DATABASE}}
    with django_db_blocker.unblock():
        with Database("foreign", databases.sqlite(tmp_path)) as database:
            settings.DATABASE_ROUTERS = [database.router]
            ForeignLayer.opened = database.alias
            yield get_channel_layer()
            await aeventually(other_tasks, equals=[], timeout=5)
            await sync_to_async(connections.close_all)()


@cases("memory-sync", "memory-async")
async def test_consumers_that_move_at_the_same_time(chat, connect, layer):
    """The one thread for sync code is blocked by consumers that wait for the layer."""
    clients = [await connect(chat, "lobby") for _ in range(4)]
    for number in range(3):
        moves = (one.set_group(f"{number} {id(one)}") for one in clients)
        await asyncio.gather(*moves)
    for client in clients:
        await client.set_group("lobby")
    assert await get_group("lobby").acount() == 4
    await get_group("lobby").asend("hello")
    assert [await client.receive_from() for client in clients] == ["hello"] * 4
    assert layer.discarded > 0
    for client in clients:
        await client.disconnect()

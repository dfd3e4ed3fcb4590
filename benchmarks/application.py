"""What the benchmarks' server processes serve: the same room, made in several ways.

A client that sends "<count> <size> <kind>" has so many frames sent to everybody.
"""

import json

import django

django.setup()

from asgiref.sync import async_to_sync  # noqa: E402
from channels.generic.websocket import (  # noqa: E402
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from channels_groups.consumers import (  # noqa: E402
    AsyncGroupConsumerMixin,
    GroupConsumerMixin,
)

ROOM = "room"


class Bare(AsyncWebsocketConsumer):
    """A consumer that does nothing."""


class BareGroups(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    """The same with the mixin."""


class Channels(AsyncWebsocketConsumer):
    """Channels alone: group_send, and a handler that sends."""

    groups = [ROOM]

    async def receive(self, text_data=None, bytes_data=None):
        message = {"type": "room.message"}
        for frame in frames(text_data):
            await self.channel_layer.group_send(ROOM, {**message, "text": frame})

    async def room_message(self, message):
        await self.send(text_data=message["text"])


class ChannelsSync(WebsocketConsumer):
    groups = [ROOM]

    def receive(self, text_data=None, bytes_data=None):
        message = {"type": "room.message"}
        for frame in frames(text_data):
            send = async_to_sync(self.channel_layer.group_send)
            send(ROOM, {**message, "text": frame})

    def room_message(self, message):
        self.send(text_data=message["text"])


class Groups(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    """The same with this library."""

    async def connect(self):
        await self.set_group(ROOM)
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        for frame in frames(text_data):
            if text_data.endswith("json"):
                await self.group.asend_json({"text": frame})
            else:
                await self.group.asend(frame)


class GroupsSync(GroupConsumerMixin, WebsocketConsumer):
    def connect(self):
        self.set_group(ROOM)
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        for frame in frames(text_data):
            self.group.send(frame)


class GroupsPlain(Groups):
    """Members are written to by other code's group_send (PLAIN_GROUP_SEND)."""

    receive = Channels.receive
    room_message = Channels.room_message


class Told(Groups):
    """Members are told of every change, and tell their client how many they are."""

    async def group_changed(self, change):
        await self.send(text_data=json.dumps({"count": change.count}))


def frames(request):
    count, size, *_ = request.split()
    return ["x" * int(size)] * int(count)


CONSUMERS = {
    "bare": Bare,
    "bare-groups": BareGroups,
    "channels": Channels,
    "channels-sync": ChannelsSync,
    "groups": Groups,
    "groups-sync": GroupsSync,
    "groups-plain": GroupsPlain,
    "told": Told,
}

application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [path(f"{name}/", one.as_asgi()) for name, one in CONSUMERS.items()]
        )
    }
)

"""WebSocket paths, and who may open them."""

from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import OriginValidator
from django.urls import re_path

from channels_groups.routing import websocket_urlpatterns as counts

from .consumers import room_consumer
from .lobby import LobbyConsumer


class NoSuchPath(AsyncWebsocketConsumer):
    """Refuse the handshake, where URLRouter alone would raise."""

    async def connect(self):
        raise DenyConnection


class OwnPagesOnly(OriginValidator):
    """Refuse pages of other sites; scripts, which send no origin, are welcome."""

    def valid_origin(self, parsed_origin):
        """Accept what has no origin, or one of the allowed hosts."""
        return parsed_origin is None or super().valid_origin(parsed_origin)


# The path arrives decoded, so slashes and line ends may be part of the room.
websocket_urlpatterns = [
    *counts,
    re_path(r"\Aws/lobby/\Z", LobbyConsumer.as_asgi()),
    re_path(r"\Aws/rooms/(?P<room>(?s:.+))/\Z", room_consumer),
    re_path(r"", NoSuchPath.as_asgi()),
]

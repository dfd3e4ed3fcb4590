"""An application for the pages whose chat.consumers has a RoomConsumer."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django_application = ASGIStaticFilesHandler(get_asgi_application())

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from chat.consumers import RoomConsumer  # noqa: E402
from django.urls import path  # noqa: E402

rooms = URLRouter([path("ws/<str:room>/", RoomConsumer.as_asgi())])
application = ProtocolTypeRouter(
    {"http": django_application, "websocket": AuthMiddlewareStack(rooms)}
)

"""The ASGI application: pages and API over HTTP, rooms and lobby over WebSocket."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
django_application = get_asgi_application()

# These need the apps loaded.
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402

from testproject.rooms.routing import (  # noqa: E402
    OwnPagesOnly,
    websocket_urlpatterns,
)

if settings.DEBUG:
    # daphne and uvicorn serve no static files by themselves, runserver does.
    django_application = ASGIStaticFilesHandler(django_application)

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": OwnPagesOnly(
            URLRouter(websocket_urlpatterns), settings.ALLOWED_HOSTS
        ),
    }
)

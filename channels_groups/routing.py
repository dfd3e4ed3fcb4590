"""The library's own WebSocket path, for ``{% group_count %}``.

Serve it beside your own: ``URLRouter([*websocket_urlpatterns, ...])``.
"""

from django.urls import path

from .counts import PATH, CountsConsumer

websocket_urlpatterns = [path(PATH, CountsConsumer.as_asgi())]

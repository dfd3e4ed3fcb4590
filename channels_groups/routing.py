"""The library's own WebSocket path, for ``{% group_count %}``.

Serve it beside your own: ``URLRouter([*websocket_urlpatterns, ...])``.
"""

from django.urls import path

from .counts import PATH, CountsConsumer

#: One pattern: ``groups/counts/``, served by
#: :class:`~channels_groups.counts.CountsConsumer`.
websocket_urlpatterns = [path(PATH, CountsConsumer.as_asgi())]

"""HTTP paths; a room's name in them is percent-encoded and may be anything."""

from django.urls import path, register_converter

from . import views


class AnyText:
    """Match any text: slashes and line ends are part of a room's name too."""

    regex = r"(?s:.+)"

    def to_python(self, value):
        """Return the name as it is."""
        return value

    def to_url(self, value):
        """Return the name; Django encodes it."""
        return value


register_converter(AnyText, "any")

urlpatterns = [
    path("", views.lobby, name="lobby"),
    path("rooms/<any:name>/", views.room, name="room"),
    path("api/rooms/", views.api_rooms, name="api-rooms"),
    path("api/rooms/<any:name>/", views.api_room, name="api-room"),
]

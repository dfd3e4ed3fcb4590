from django.apps import AppConfig


class RoomsConfig(AppConfig):
    """The demo: a lobby and rooms."""

    name = "testproject.rooms"
    label = "rooms"

    def ready(self):
        from . import events  # noqa: F401  (connects the receivers)

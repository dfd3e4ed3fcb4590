from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured


class ChannelsGroupsConfig(AppConfig):
    """The app: put ``"channels_groups"`` into INSTALLED_APPS."""

    name = "channels_groups"
    verbose_name = "Connection groups"

    def ready(self) -> None:
        from . import checks  # Which registers them, too.

        # Raised, as servers run no checks.
        if mistake := checks.find_mistake():
            raise ImproperlyConfigured(str(mistake))

from django.apps import AppConfig


class ChannelsGroupsConfig(AppConfig):
    """The app: put ``"channels_groups"`` into INSTALLED_APPS."""

    name = "channels_groups"
    verbose_name = "Connection groups"

    def ready(self) -> None:
        from . import checks, conf  # noqa: F401  (registers the checks)

        conf.check_all()

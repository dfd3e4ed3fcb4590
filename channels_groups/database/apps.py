from django.apps import AppConfig


class DatabaseConfig(AppConfig):
    """The optional app: put ``"channels_groups.database"`` into INSTALLED_APPS."""

    name = "channels_groups.database"
    label = "channels_groups_database"
    verbose_name = "Connection groups in the database"
    default_auto_field = "django.db.models.BigAutoField"

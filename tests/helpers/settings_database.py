"""The demo's settings with its memberships in PostgreSQL.

DATABASE_NAME and DATABASE_PORT: where that is. LAYER_PORT: where the channel layer,
channels_postgres, has its tables; without it the layer is that of CHANNEL_LAYER.
"""

import os

from channels_groups.stores import DATABASE
from testproject.settings import *  # noqa: F401, F403
from testproject.settings import CHANNEL_LAYERS, CHANNELS_GROUPS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "channels_postgres"]
ENTRY = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": os.environ["DATABASE_NAME"],
    "USER": "groups",
    "HOST": "127.0.0.1",
    "PORT": os.environ["DATABASE_PORT"],
}
DATABASES = {"default": ENTRY}
if "LAYER_PORT" in os.environ:
    # The layer looks for its models in a database of this name.
    LAYER = {**ENTRY, "PORT": os.environ["LAYER_PORT"]}
    DATABASES["channels_postgres"] = LAYER
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_postgres.core.PostgresChannelLayer",
        "CONFIG": LAYER,
    }
CHANNELS_GROUPS["default"]["STORE"] = DATABASE

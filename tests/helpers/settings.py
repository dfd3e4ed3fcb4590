"""The demo's settings with what its environment variables do not reach.

SENTINEL_PORT: find the server "main" by a sentinel; GROUP_EXPIRY: of the layer.
"""

import os

from testproject.settings import *  # noqa: F401, F403
from testproject.settings import CHANNEL_LAYERS

CONFIG = CHANNEL_LAYERS["default"]["CONFIG"]

if "SENTINEL_PORT" in os.environ:
    sentinels = [("127.0.0.1", int(os.environ["SENTINEL_PORT"]))]
    CONFIG["hosts"] = [
        {"sentinels": sentinels, "master_name": "main", "socket_timeout": None}
    ]
if "GROUP_EXPIRY" in os.environ:
    CONFIG["group_expiry"] = int(os.environ["GROUP_EXPIRY"])

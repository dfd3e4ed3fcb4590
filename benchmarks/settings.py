"""Django's settings, for the benchmarks' own process and for its servers.

One alias for each layer and setting to be compared, all on one Redis.
"""

import os

URL = os.environ["BENCHMARK_REDIS_URL"]


def core(prefix, *urls):
    # Unbounded where a peer would fail; socket_timeout: see channels_redis#422.
    unbounded = {"socket_timeout": None, "max_connections": 5000}
    hosts = [{"address": url, **unbounded} for url in urls or (URL,)]
    config = {"hosts": hosts, "prefix": prefix, "capacity": 100_000}
    return {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}


def pubsub(prefix):
    config = {"hosts": [URL], "prefix": prefix}
    backend = "channels_redis.pubsub.RedisPubSubChannelLayer"
    return {"BACKEND": backend, "CONFIG": config}


SECRET_KEY = "benchmarks"
USE_TZ = True
INSTALLED_APPS = ["channels_groups"]
CHANNEL_LAYERS = {
    "core": core("core"),
    "core-bare": core("core-bare"),
    "pubsub": pubsub("pubsub"),
    "pubsub-bare": pubsub("pubsub-bare"),
}
CHANNEL_LAYERS["default"] = CHANNEL_LAYERS[os.environ.get("BENCHMARK_LAYER", "core")]
CHANNELS_GROUPS = {
    "core-bare": {"PLAIN_GROUP_SEND": False},
    "pubsub-bare": {"PLAIN_GROUP_SEND": False},
}

"""The channel layers that the library works on, as tests configure them."""

from functools import partial
from typing import Any

from .eventually import eventually
from .server import RedisServer

MEMORY = "channels.layers.InMemoryChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"

#: Until a server has run for so long, its stores believe that it was emptied.
SEASON = 4


def memory_layer(**config: Any) -> dict[str, Any]:
    """Return CHANNEL_LAYERS with the layer for one process."""
    return {"default": {"BACKEND": MEMORY, "CONFIG": {"capacity": 10_000, **config}}}


def redis_layer(
    backend: str, urls: str | list[str], prefix: str, **config: Any
) -> dict[str, Any]:
    """Return CHANNEL_LAYERS with a layer of channels_redis on one or more servers."""
    urls = [urls] if isinstance(urls, str) else urls
    config["hosts"] = [{"address": url, "socket_timeout": None} for url in urls]
    config["prefix"] = prefix
    if backend == CORE:
        config.setdefault("capacity", 10_000)
    return {"default": {"BACKEND": backend, "CONFIG": config}}


def wait_until_seasoned(server: RedisServer) -> None:
    """Wait until nobody takes the server for one that has just lost its data."""
    eventually(partial(_is_seasoned, server))


def _is_seasoned(server: RedisServer) -> bool:
    with server.client() as client:
        return client.info("server")["uptime_in_seconds"] >= SEASON


def keys_of(server: RedisServer, prefix: str) -> dict[str, int]:
    """Return the keys under a prefix with the seconds that each has to live (or -1)."""
    with server.client() as client:
        keys = list(client.scan_iter(match=f"*{prefix}*", count=1000))
        return {key: client.ttl(key) for key in keys}


def subscriptions_of(server: RedisServer, prefix: str) -> list[str]:
    """Return the channels under a prefix that somebody listens to."""
    with server.client() as client:
        return client.pubsub_channels(f"*{prefix}*")

"""The stores, and which one goes with a channel layer."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from channels_groups import conf

from .base import BaseStore


def make_store(alias: str, layer: Any) -> BaseStore:
    """Make the store of a channel layer; raise ImproperlyConfigured if none fits."""
    fitting = _find(layer)
    path = conf.get_settings(alias).store or fitting
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if path is None:
        raise ImproperlyConfigured(
            f"channels_groups has no store for {name}: set CHANNELS_GROUPS[{alias!r}]"
            f'["STORE"] to "{DATABASE}", or to the dotted path of your own.'
        )
    if path != fitting and path in STORES.values():
        raise ImproperlyConfigured(f"The store {path} does not go with {name}.")
    store: BaseStore = conf.load(alias, "STORE", path)(alias, layer)
    return store


def _find(layer: Any) -> str | None:
    """Return the path of the store for the layer's class, or one above it."""
    for cls in type(layer).__mro__:
        path = STORES.get(f"{cls.__module__}.{cls.__qualname__}")
        if path:
            return path
    return None


STORES = {
    "channels.layers.InMemoryChannelLayer": "channels_groups.stores.memory.MemoryStore",
    "channels_redis.core.RedisChannelLayer": "channels_groups.stores.redis.CoreStore",
    "channels_redis.pubsub.RedisPubSubChannelLayer": (
        "channels_groups.stores.redis.PubSubStore"
    ),
}
#: The store that goes with any layer.
DATABASE = "channels_groups.database.store.DatabaseStore"

"""System checks: what is configured so that it would fail later, or lose something."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Iterator

from channels import DEFAULT_CHANNEL_LAYER
from channels.consumer import AsyncConsumer
from channels.layers import InMemoryChannelLayer, get_channel_layer
from channels.routing import get_default_application
from django.conf import settings
from django.core import mail
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from . import conf
from .consumers import AsyncGroupConsumerMixin, GroupConsumerMixin
from .stores import make_store

#: Messages of one process that wait in channels_redis core; its default is 100.
MIN_CAPACITY = 1000
#: Leases in which the layer's groups must not expire; they are entered again before.
LEASES = 6
CORE = "channels_redis.core.RedisChannelLayer"


def find_mistake() -> Error | None:
    """Return what is wrong in CHANNELS_GROUPS. Django does not start with it."""
    try:
        conf.check_all()
    except ImproperlyConfigured as error:
        hint = "See docs/reference/settings.md of channels_groups."
        return Error(str(error), hint=hint, id="channels_groups.E002")
    return None


@register("channels_groups")
def check_layers(**kwargs: Any) -> list[CheckMessage]:
    """Check every channel layer, and the settings and the store that go with it."""
    if mistake := find_mistake():
        return [mistake]
    aliases = list(getattr(settings, "CHANNEL_LAYERS", {}))
    if not aliases:
        hint = 'Set CHANNEL_LAYERS = {"default": {"BACKEND": ...}}.'
        message = "There is no channel layer: groups cannot be entered."
        return [Error(message, hint=hint, id="channels_groups.E001")]
    return [message for alias in aliases for message in _check_layer(alias)]


@register("channels_groups")
def check_consumers(**kwargs: Any) -> list[CheckMessage]:
    """Check the bases of the consumer classes that ASGI_APPLICATION imports."""
    with suppress(Exception):  # Of what does not work its server tells.
        get_default_application()
    return [
        Error(
            f"{cls.__module__}.{cls.__qualname__} has {mixin.__name__} after the "
            "consumer class in its bases, where it has no effect.",
            hint=f"class {cls.__name__}({mixin.__name__}, ...)",
            obj=cls,
            id="channels_groups.E003",
        )
        for mixin in (AsyncGroupConsumerMixin, GroupConsumerMixin)
        # Each once, by however many of its bases it is reached.
        for cls in dict.fromkeys(_subclasses(mixin))
        if AsyncConsumer in cls.__mro__
        and cls.__mro__.index(AsyncConsumer) < cls.__mro__.index(mixin)
    ]


def _check_layer(alias: str) -> Iterator[CheckMessage]:
    where = f"CHANNEL_LAYERS[{alias!r}]"
    try:
        layer = get_channel_layer(alias)
        store = make_store(alias, layer)
        timeouts = _socket_timeouts(layer) if _is_core(layer) else []
    except Exception as error:  # A layer or a store may raise anything.
        hint = f"Correct {where}, or set CHANNELS_GROUPS[{alias!r}]['STORE']."
        message = f"{where} gives no store: {error}"
        # One beside the default, which nothing is said of, may be for other things.
        if alias in {DEFAULT_CHANNEL_LAYER, *getattr(settings, "CHANNELS_GROUPS", ())}:
            yield Error(message, hint=hint, id="channels_groups.E004")
        return
    if isinstance(layer, InMemoryChannelLayer) and _is_production():
        message = f"{where} is in memory: other processes have groups of their own."
        hint = "Use channels_redis.core.RedisChannelLayer in production."
        yield Warning(message, hint=hint, id="channels_groups.W001")
    if conf.get_settings(alias).grace and not store.lingers:
        message = f"The STORE of {alias!r} lets nobody linger: GRACE has no effect."
        hint = "Use a store of channels_groups, or leave GRACE out."
        yield Warning(message, hint=hint, id="channels_groups.W005")
    if _is_core(layer):
        yield from _check_core(where, layer, timeouts)
    lease = conf.get_settings(alias).lease
    # Not getattr(): channels_redis pub/sub would look for a running loop.
    expiry = vars(layer).get("group_expiry")
    if expiry and expiry < LEASES * lease:
        message = (
            f"{where} has a group_expiry of {expiry} s, which is short beside the "
            f"LEASE of {lease} s."
        )
        hint = f"Set group_expiry to {LEASES * lease} or more; the default is 86400."
        yield Warning(message, hint=hint, id="channels_groups.W004")


def _check_core(
    where: str, layer: Any, timeouts: list[float | None]
) -> Iterator[CheckMessage]:
    # An idle consumer waits for so long, and then again.
    waits = layer.brpop_timeout
    if any(timeout is not None and timeout <= waits for timeout in timeouts):
        message = (
            f"{where} has hosts with a socket_timeout of {waits} s or less, which is "
            "redis-py 8's default: an idle consumer is closed with 1011."
        )
        hint = (
            'Write "hosts": [{"address": "redis://localhost:6379", '
            '"socket_timeout": None}].'
        )
        yield Warning(message, hint=hint, id="channels_groups.W002")
    # The queue in Redis, and then the one in the process.
    of_process = layer.get_capacity(f"specific.{layer.client_prefix}!")
    capacity = min(of_process, layer.capacity)
    if capacity < MIN_CAPACITY:
        message = (
            f"{where} has a capacity of {capacity}: of a burst of messages to "
            "one process, those beyond it are lost."
        )
        hint = f'Set "capacity": {MIN_CAPACITY} or more in its CONFIG.'
        if of_process < layer.capacity:
            hint = f'Set {MIN_CAPACITY} or more for "specific.*" in channel_capacity.'
        yield Warning(message, hint=hint, id="channels_groups.W003")


def _socket_timeouts(layer: Any) -> list[float | None]:
    """Return what applies to each host, be it from a URL or redis-py's default."""
    pools = (layer.create_pool(number) for number in range(len(layer.hosts)))
    return [pool.make_connection().socket_timeout for pool in pools]


def _is_production() -> bool:
    # A test runner turns DEBUG off too. It has given mail an outbox by then.
    return not settings.DEBUG and not hasattr(mail, "outbox")


def _is_core(layer: Any) -> bool:
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(layer).__mro__)
    return CORE in names


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)

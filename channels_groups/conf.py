"""The settings: ``CHANNELS_GROUPS``, one dict per channel layer alias."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Callable

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string


@dataclass(frozen=True)
class GroupSettings:
    """The settings of one channel layer alias, checked.

    The names are the keys in lower case; docs/reference/settings.md explains them.
    """

    manager: str = "channels_groups.manager.GroupManager"
    store: str | None = None
    lease: float = 10
    change_interval: float = 0.1
    max_members: int | None = None
    outbox: int = 1000
    plain_group_send: bool = True
    state_limit: int | None = 1000
    grace: float = 0

    @property
    def renewal(self) -> float:
        """Seconds between two renewals of a lease."""
        return min(1.0, self.lease / 3)


@lru_cache(maxsize=None)
def get_settings(alias: str) -> GroupSettings:
    """Return the settings of ``alias``; raise ImproperlyConfigured naming a bad one."""
    config = _all_settings().get(alias, {})
    if not isinstance(config, dict):
        raise ImproperlyConfigured(f"CHANNELS_GROUPS[{alias!r}] must be a dict.")
    known = {field.name.upper() for field in fields(GroupSettings)}
    for key in config:
        if key not in known:
            raise ImproperlyConfigured(
                f"CHANNELS_GROUPS[{alias!r}] has an unknown key {key!r}; the keys are "
                f"{', '.join(sorted(known))}."
            )
    for key, (check, must) in RULES.items():
        if key in config and not check(config[key]):
            raise ImproperlyConfigured(
                f"CHANNELS_GROUPS[{alias!r}][{key!r}] must be {must}, "
                f"not {config[key]!r}."
            )
    return GroupSettings(**{key.lower(): value for key, value in config.items()})


def load(alias: str, key: str, path: str) -> Any:
    """Import what the setting ``key`` names, or raise ImproperlyConfigured."""
    try:
        return import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"CHANNELS_GROUPS[{alias!r}][{key!r}] cannot be imported: {error}"
        ) from error


def check_all() -> None:
    """Check every alias at start, so that a mistake does not wait for a user."""
    for alias in _all_settings():
        if alias not in getattr(settings, "CHANNEL_LAYERS", {}):
            raise ImproperlyConfigured(
                f"CHANNELS_GROUPS has {alias!r}, which CHANNEL_LAYERS has not."
            )
        config = get_settings(alias)
        load(alias, "MANAGER", config.manager)
        if config.store is not None:
            load(alias, "STORE", config.store)


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting == "CHANNELS_GROUPS":
        get_settings.cache_clear()


setting_changed.connect(_reset)


def _all_settings() -> dict[str, Any]:
    config = getattr(settings, "CHANNELS_GROUPS", {})
    if not isinstance(config, dict):
        raise ImproperlyConfigured("CHANNELS_GROUPS must be a dict of dicts.")
    return config


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "MANAGER": (lambda value: isinstance(value, str), "a dotted path"),
    "STORE": (
        lambda value: value is None or isinstance(value, str),
        "None or a dotted path",
    ),
    "LEASE": (
        lambda value: _is_number(value) and 1 <= value < float("inf"),
        "a number of seconds, at least 1",
    ),
    "CHANGE_INTERVAL": (
        lambda value: _is_number(value) and 0 <= value < float("inf"),
        "a number of seconds, at least 0",
    ),
    "MAX_MEMBERS": (
        lambda value: value is None or _is_positive_int(value),
        "None or an int, at least 1",
    ),
    "OUTBOX": (_is_positive_int, "an int, at least 1"),
    "PLAIN_GROUP_SEND": (lambda value: isinstance(value, bool), "True or False"),
    "STATE_LIMIT": (
        lambda value: value is None or _is_positive_int(value),
        "None or an int, at least 1",
    ),
    "GRACE": (
        lambda value: _is_number(value) and 0 <= value < float("inf"),
        "a number of seconds, at least 0",
    ),
}

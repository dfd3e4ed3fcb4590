"""Names of groups, and what the channel layer calls them.

A channel layer takes names of fewer than 100 ASCII letters, digits, hyphens,
underscores and periods (``channels.layers.BaseChannelLayer``). Groups have any
name; here each gets two names in the layer that no other group shares: its own
(where the library's messages go) and the plain one (where other code's
``channel_layer.group_send()`` goes).
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from channels.layers import BaseChannelLayer

MAX_LENGTH = 1000
PREFIX = "groups."
#: No own name is longer: channels_postgres keeps 100 characters, prefix included.
MAX_OWN_LENGTH = 89
#: Names whose names in the layer are remembered: most are asked for again.
CACHED = 4096

_layer = BaseChannelLayer()
_mapped = re.compile(r".*\.\.[0-9a-f]{40}", re.DOTALL)
_unsafe = re.compile(r"[^a-zA-Z0-9\-_.]+")


def check_name(name: object) -> str:
    """Return ``name`` if it can name a group.

    Raise TypeError if it is not a str, ValueError if it is empty, longer than
    1,000 characters or not encodable (a lone surrogate).
    """
    if not isinstance(name, str):
        raise TypeError(f"A group's name must be a str, not {type(name).__name__}.")
    if not name:
        raise ValueError("A group's name must not be empty.")
    if len(name) > MAX_LENGTH:
        raise ValueError(
            f"A group's name has at most {MAX_LENGTH:,} characters, not {len(name):,}."
        )
    if not is_encodable(name):
        raise ValueError("A group's name must be valid Unicode.")
    return name


def is_encodable(text: str) -> bool:
    """Return whether a store can hold the text: not with a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=CACHED)
def plain_name(name: str) -> str:
    """Return the layer group in which other code's messages to ``name`` arrive.

    It is ``name`` itself where the layer accepts that, it does not begin with
    ``groups.`` and does not look like a mapped name.
    """
    if name.startswith(PREFIX) or _mapped.fullmatch(name) or not _is_accepted(name):
        return _map(name)
    return name


@lru_cache(maxsize=CACHED)
def own_name(name: str) -> str:
    """Return the layer group of the library's own messages to ``name``.

    Plain names never begin with ``groups.``, so the two never meet.
    """
    own = PREFIX + plain_name(name)
    return own if len(own) <= MAX_OWN_LENGTH else PREFIX + _map(name)


def _is_accepted(name: str) -> bool:
    try:
        return bool(_layer.require_valid_group_name(name))
    except TypeError:
        return False


def _map(name: str) -> str:
    """Return a readable beginning, two periods and 160 bits of a digest."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:40]
    readable = _unsafe.sub("-", name[:40])
    if readable.startswith(PREFIX):
        readable = readable.replace(".", "-", 1)
    return f"{readable}..{digest}"

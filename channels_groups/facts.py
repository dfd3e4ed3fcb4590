"""What a consumer says of itself, and the manager of a group, checked."""

from __future__ import annotations

import json
from typing import Any

#: Bytes of JSON that a connection may tell about itself.
MAX_INFO = 8 * 1024
#: So much higher may the stack be where info is written or read again.
MARGIN = 100
#: No group has more members, and every store can compare with it.
MOST = 2**31


def check_user_id(user_id: Any) -> str | None:
    """Return the user id.

    Raise TypeError if it is neither a str nor None, ValueError if it is not encodable
    (a lone surrogate).
    """
    if user_id is not None and not isinstance(user_id, str):
        raise TypeError(
            "get_group_user_id() must return a str or None, not "
            f"{type(user_id).__name__}."
        )
    try:
        (user_id or "").encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"get_group_user_id() must return valid Unicode: {error}."
        ) from error
    return user_id


def check_info(info: Any, source: str = "get_group_info()") -> dict[str, Any]:
    """Return info as it comes out of JSON; ``source`` is what errors name.

    Raise TypeError that names the key which is not JSON-serialisable, ValueError
    if all of it is more than 8 KiB.
    """
    if not isinstance(info, dict):
        raise TypeError(
            f"The info of {source} must be a dict, not {type(info).__name__}."
        )
    if not info:
        return info
    try:
        encoded = _encode(info)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"{source} has under {_find_bad_key(info)!r} what is not "
            f"JSON-serialisable: {error}"
        ) from error
    if len(encoded) > MAX_INFO:
        raise ValueError(
            f"{source} has {len(encoded):,} bytes of JSON; at most "
            f"{MAX_INFO:,} are allowed."
        )
    decoded: dict[str, Any] = json.loads(encoded)
    return decoded


def check_limit(limit: Any) -> int | None:
    """Return how many members there may be; a negative number is for nobody.

    Raise TypeError if it is neither an int nor None.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(
            f"max_members() must return an int or None, not {type(limit).__name__}."
        )
    return min(max(0, limit), MOST)


def _encode(info: dict[Any, Any]) -> str:
    """Return info as JSON. What is nested too deeply fails here and nowhere later."""
    encoded = json.dumps(info, allow_nan=False)
    if encoded.count("[") + encoded.count("{") > MARGIN:
        deeper: Any = info
        for _ in range(MARGIN):
            deeper = [deeper]
        json.dumps(deeper)
    return encoded


def _find_bad_key(info: dict[Any, Any]) -> Any:
    for key, value in info.items():
        try:
            _encode({key: value})
        except (TypeError, ValueError, RecursionError):
            return key
    return None

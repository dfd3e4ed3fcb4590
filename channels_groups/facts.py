"""What a consumer says of itself, checked."""

from __future__ import annotations

import json
from typing import Any

#: Bytes of JSON that a connection may tell about itself.
MAX_INFO = 8 * 1024


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
        encoded = json.dumps(info, allow_nan=False)
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


def _find_bad_key(info: dict[Any, Any]) -> Any:
    for key, value in info.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return key
    return None

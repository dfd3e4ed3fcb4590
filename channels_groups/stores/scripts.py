"""The Lua scripts in lua/, loaded once and called by digest."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any, Iterable, Sequence

from redis.asyncio import Redis
from redis.exceptions import NoScriptError


class Script:
    """One script. The client is given with each call, so event loops can share it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._digest = hashlib.sha1(source.encode()).hexdigest()

    async def __call__(
        self, client: Redis, keys: Sequence[str], args: Sequence[Any]
    ) -> Any:
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:  # Also after SCRIPT FLUSH and a restart.
            return await client.eval(self._source, len(keys), *keys, *args)

    def pack(self, keys: Sequence[str], args: Sequence[Any]) -> bytes:
        """Return the call as it goes over a connection."""
        head = _pack_head(self._digest, tuple(keys))
        count = 3 + len(keys) + len(args)
        return b"*%d\r\n%b%b" % (count, head, _pack(args))


def load(name: str) -> Script:
    """Load ``lua/<name>.lua`` with what it shares put before it."""
    folder = resources.files(__package__) / "lua"
    parts = [folder / "common.lua", folder / f"{name}.lua"]
    return Script("\n".join(part.read_text() for part in parts))


def glob(prefix: str) -> str:
    """Return a pattern of Redis for names that begin so."""
    return "".join("\\" + char if char in "*?[]^\\" else char for char in prefix) + "*"


@lru_cache(maxsize=1024)
def _pack_head(digest: str, keys: tuple[str, ...]) -> bytes:
    """Pack what a node's calls of a script begin with; it is the same each time."""
    return _pack(["EVALSHA", digest, len(keys), *keys])


def _pack(values: Iterable[str | bytes | int | float]) -> bytes:
    """Return bulk strings of Redis' protocol, as redis-py would write them."""
    packed = []
    for value in values:
        if not isinstance(value, bytes):
            value = str(value).encode()
        packed.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(packed)

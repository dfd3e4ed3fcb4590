"""A connection of redis-py that is kept for one caller's scripts.

redis-py takes a connection out of its pool for each command, checks it, times the
command and counts it: three times the work of the round trip itself. A commit is
all that a join costs, so it goes past that; whatever is unusual goes redis-py's way.
"""

from __future__ import annotations

import asyncio
from typing import Any, Sequence, cast

from redis.asyncio import Connection, ConnectionPool

from .scripts import Script


class LineBroken(Exception):
    """No answer that this line can read. It may have been carried out or not."""


class Line:
    """One connection out of a client's pool, for one call at a time.

    The pool has connected it, so it is as configured: TLS, password, Sentinel.
    """

    def __init__(self, pool: ConnectionPool, connection: Connection) -> None:
        self._pool = pool
        self._connection = connection
        # The streams under redis-py 7.4 to 8.1. Nothing is left in its parser
        # between two commands.
        self._reader = cast(asyncio.StreamReader, connection._reader)
        self._writer = cast(asyncio.StreamWriter, connection._writer)

    @classmethod
    async def open(cls, pool: ConnectionPool) -> Line:
        """Take a connection out of the pool, until close()."""
        return cls(pool, await pool.get_connection())  # type: ignore[no-untyped-call]

    async def call(
        self, script: Script, keys: Sequence[str], args: Sequence[Any], timeout: float
    ) -> Any:
        """Run a script; raise LineBroken, after which only close() is left to do."""
        hang_up = self._writer.transport.abort
        timer = asyncio.get_running_loop().call_later(timeout, hang_up)
        try:
            command = _pack("EVALSHA", script.digest, len(keys), *keys, *args)
            self._writer.write(command)
            return await self._read()
        except (OSError, EOFError) as error:
            raise LineBroken from error
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Give the connection back, without what may still be under way on it."""
        await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)

    async def _read(self) -> Any:
        head = await self._reader.readuntil(b"\r\n")
        kind, rest = head[:1], head[1:]
        if kind == b"$":
            return (await self._reader.readexactly(int(rest) + 2))[:-2]
        if kind == b"*":
            return [await self._read() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        raise LineBroken(head.decode(errors="replace"))


def _pack(*words: str | bytes | int) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)

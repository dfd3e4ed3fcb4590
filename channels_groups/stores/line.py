"""Scripts on redis-py's connections, past the client around them."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError, NoScriptError, TimeoutError

#: What a lost connection raises. AttributeError: Python 3.12 and 3.13.0 have
#: ``StreamWriter.writelines()`` go on with a transport that has no loop any more.
LOST = (ConnectionError, TimeoutError, OSError, AttributeError)
#: After these, redis-py's own way may yet succeed: it loads the script or connects
#: again. What became of the command is not known, but all scripts may be repeated.
BROKEN = (*LOST, NoScriptError)


class Line:
    """One connection, for one command at a time.

    redis-py's pool looks at a connection before and after each command, and its
    client times and guards each; together that costs more than the command. This
    one leaves the guarding to the caller, who gives each call a time limit.
    """

    def __init__(self, client: Redis, timeout: float, borrowed: bool = False) -> None:
        """``timeout``: what the caller waits for an answer, in seconds.

        Nobody need close one that is ``borrowed`` from the client's pool: it is not
        given back, and is closed with the pool.
        """
        self.client = client
        self._timeout = timeout
        self.borrowed = borrowed
        self._connection: Connection | None = None
        self.busy = False

    async def call(self, command: bytes) -> Any:
        """Send a packed command and return the answer, of bytes, or raise its error.

        redis-py disconnects when a call is cancelled or breaks, so that no answer is
        taken for another command's; the next call connects again.
        """
        self.busy = True
        try:
            connection = self._connection or await self._connect()
            await connection.send_packed_command(command, check_health=False)
            return await connection.read_response(disable_decoding=True)
        finally:
            self.busy = False

    async def close(self) -> None:
        """Disconnect; the next call connects again."""
        if self._connection:
            await self._connection.disconnect()

    async def _connect(self) -> Connection:
        pool: Any = self.client.connection_pool
        connection: Connection = (
            await pool.get_connection() if self.borrowed else pool.make_connection()
        )
        if (connection.socket_timeout or self._timeout) >= self._timeout:
            # The caller's comes first, and redis-py's own costs a task for each call.
            connection.socket_timeout = None
        self._connection = connection
        return connection


async def borrow(client: Redis, command: bytes) -> Any:
    """Send a packed command over a connection of a client's pool, as Line.call().

    Past the client, which times and guards each command once more than the caller.
    """
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_packed_command(command, check_health=False)
        return await connection.read_response(disable_decoding=True)
    finally:
        await pool.release(connection)

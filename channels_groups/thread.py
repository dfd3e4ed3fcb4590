"""Threads of one's own: for a layer's sync code, and for a question amid a loop."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Awaitable, Callable, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from channels.db import aclose_old_connections
from django.db import connections

T = TypeVar("T")

#: Seconds between two looks for old database connections.
CLEANING = 1


class OldConnections:
    """Closes old database connections, as Channels does, but once a second."""

    def __init__(self) -> None:
        self._closed = float("-inf")

    async def close(self) -> None:
        """Close those of the thread in which the caller's sync code runs."""
        now = asyncio.get_running_loop().time()
        if now >= self._closed + CLEANING:
            self._closed = now
            await aclose_old_connections()


def ask(call: Callable[[], T]) -> T:
    """Call what sync code may, also where an event loop runs, as in an async view.

    There it is called in a thread of its own, and the loop waits for it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_call_and_close, call).result()


class OwnThread:
    """Awaits calls whose sync code runs in a thread that nobody else uses.

    A layer may use Django's ORM (channels_postgres 1.1 does to discard from a group),
    in the process' one thread for sync code. A sync consumer blocks that while it
    waits in set_group(), and this call may be what it waits for.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._holder: asyncio.Task[None] | None = None
        self._held: asyncio.Future[contextvars.Context] = self._loop.create_future()
        self._stopping = asyncio.Event()

    async def run(self, call: Awaitable[T]) -> T:
        """Await a call."""
        if self._holder is None:
            # In an empty context, so that no thread of a consumer is inherited.
            self._holder = contextvars.Context().run(
                self._loop.create_task, self._hold()
            )
        try:
            context = await asyncio.shield(self._held)
            task: asyncio.Task[T] = context.copy().run(
                self._loop.create_task, _await(call)
            )
            return await task
        finally:
            if asyncio.iscoroutine(call):
                call.close()  # It may not have begun.

    async def stop(self) -> None:
        """End the thread; there are no calls any more."""
        self._stopping.set()
        if self._holder is not None:
            await asyncio.wait([self._holder])

    async def _hold(self) -> None:
        async with ThreadSensitiveContext():
            self._held.set_result(contextvars.copy_context())
            await self._stopping.wait()
            await sync_to_async(connections.close_all)()


async def _await(call: Awaitable[T]) -> T:
    return await call


def _call_and_close(call: Callable[[], T]) -> T:
    try:
        return call()
    finally:
        connections.close_all()  # Those of this thread, which ends.

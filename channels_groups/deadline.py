"""Waiting for no longer than one wants to."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Awaitable, TypeVar

T = TypeVar("T")

#: Seconds in which a loop reads what has arrived.
GRACE = 0.05

if sys.version_info >= (3, 11):

    async def in_time(call: Awaitable[T], seconds: float) -> T:
        """Await a call, or cancel it after so many seconds.

        Raise asyncio.TimeoutError then. A caller that is cancelled meanwhile always
        hears of it.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            # A loop that was blocked all the time gets the time to read the answer.
            timer = loop.call_later(
                seconds, lambda: limit.reschedule(loop.time() + GRACE)
            )
            try:
                return await call
            finally:
                timer.cancel()

else:

    async def in_time(call: Awaitable[T], seconds: float) -> T:
        """Be the same without asyncio.timeout(), at the price of a task.

        asyncio.wait_for() before Python 3.12 forgets that the caller was cancelled
        if the call ends at that moment; the caller then goes on as if nothing had
        happened.
        """
        task = asyncio.ensure_future(call)
        try:
            done, _ = await asyncio.wait([task], timeout=max(0, seconds))
            if not done:
                await asyncio.wait([task], timeout=GRACE)
        except asyncio.CancelledError:
            await _end(task)
            raise
        if not task.done():
            await _end(task)
            raise asyncio.TimeoutError
        return task.result()


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # Retrieved: nobody else will.

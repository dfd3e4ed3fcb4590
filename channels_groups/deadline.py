"""Waiting for no longer than one wants to."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Awaitable, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

#: Seconds in which a loop reads what has arrived.
GRACE = 0.1

if sys.version_info >= (3, 11):

    async def in_time(call: Awaitable[T], seconds: float) -> T:
        """Await a call, or cancel it after so many seconds and up to 2 * GRACE.

        Raise asyncio.TimeoutError then. A caller that is cancelled meanwhile always
        hears of it.
        """
        with _Limit(seconds):
            return await call

    class _Limit:
        """asyncio.timeout(), without a timer for each call.

        A timer and its handle cost as much as all else about a call that is answered
        at once, as nearly every one is.
        """

        def __init__(self, seconds: float) -> None:
            self._seconds = seconds
            self._late = self._expired = False

        def __enter__(self) -> None:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            assert task is not None
            self._task, self._cancelling = task, task.cancelling()
            self._end = loop.time() + self._seconds
            watch = _watches.get(loop)
            if watch is None:
                watch = _watches[loop] = _Watch()
            self._watch = watch
            watch.begin(self)

        def __exit__(self, kind: Any, error: Any, _: Any) -> None:
            self._watch.end(self)
            if self._expired and self._task.uncancel() <= self._cancelling:
                if kind is asyncio.CancelledError:
                    raise asyncio.TimeoutError from error

        def look(self, now: float) -> None:
            """Cancel what was late before: a loop that was blocked reads first."""
            if self._late:
                self._watch.end(self)
                self._expired = True
                self._task.cancel()
            self._late = self._end <= now

    class _Watch:
        """Looks at the limits of one loop every GRACE seconds, while there are any."""

        def __init__(self) -> None:
            self._limits: set[_Limit] = set()
            self._looking = False

        def begin(self, limit: _Limit) -> None:
            self._limits.add(limit)
            if not self._looking:
                self._look_later()

        def end(self, limit: _Limit) -> None:
            self._limits.discard(limit)

        def _look_later(self) -> None:
            self._looking = True
            asyncio.get_running_loop().call_later(GRACE, self._look)

        def _look(self) -> None:
            now = asyncio.get_running_loop().time()
            for limit in list(self._limits):
                limit.look(now)
            self._looking = False
            if self._limits:
                self._look_later()

    _watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()

else:

    async def in_time(call: Awaitable[T], seconds: float) -> T:
        """Be the same without Task.uncancel(), at the price of a task.

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
            if task.cancelled():
                raise asyncio.TimeoutError
        return task.result()

    async def _end(task: asyncio.Future[Any]) -> None:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # Retrieved: nobody else will.

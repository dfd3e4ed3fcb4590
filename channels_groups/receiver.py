"""Reading one channel of the channel layer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable

logger = logging.getLogger("channels_groups")

#: Seconds between two attempts while the layer or the store fails.
RETRY = 0.25


class Receiver:
    """Read one channel of the layer, whatever happens to the layer."""

    def __init__(
        self, layer: Any, channel: str, handle: Callable[[dict[str, Any]], None]
    ) -> None:
        self.channel = channel
        self._layer = layer
        self._handle = handle
        loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(), name=f"receive from {channel}")

    async def stop(self) -> None:
        """Stop, once, and wait for the end."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def wait(self, timeout: float) -> bool:
        """Wait for a StopReceiving, after which nothing is handled; return if it came.

        The channel is read until stop(): pub/sub unsubscribes when its receive() is
        cancelled.
        """
        await asyncio.wait([self._stopped], timeout=timeout)
        return self._stopped.done()

    async def _run(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self.channel)
            except Exception:  # channels_redis lets through what redis-py raises,
                # and a timeout of its client (redis-py 8) only means: no message.
                logger.debug("No message from the layer.", exc_info=True)
                await asyncio.sleep(RETRY)
                continue
            if self._stopped.done():
                continue
            try:
                self._handle(message)
            except StopReceiving:
                self._stopped.set_result(None)
            except Exception:
                logger.exception("A message from the channel layer was dropped.")


class StopReceiving(Exception):
    """Raised by a handler to end its receiver."""

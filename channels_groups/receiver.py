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
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"receive from {channel}"
        )

    async def stop(self) -> None:
        """Stop, once, and wait for the end."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def wait(self, timeout: float) -> bool:
        """Wait for the end that a StopReceiving brings; return if it came."""
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        return bool(done)

    async def _run(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self.channel)
            except Exception:  # channels_redis lets through what redis-py raises,
                # and a timeout of its client (redis-py 8) only means: no message.
                logger.debug("No message from the layer.", exc_info=True)
                await asyncio.sleep(RETRY)
                continue
            try:
                self._handle(message)
            except StopReceiving:
                return
            except Exception:
                logger.exception("A message from the channel layer was dropped.")


class StopReceiving(Exception):
    """Raised by a handler to end its receiver."""

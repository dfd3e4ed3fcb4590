"""Reading one channel of the channel layer."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import Any, Callable

logger = logging.getLogger("channels_groups")

#: Seconds between two attempts while the layer or the store fails.
RETRY = 0.25


class Receiver:
    """Read one channel of the layer, whatever happens to the layer.

    ``beside``: another Receiver of this event loop and layer is always reading.
    """

    def __init__(
        self,
        layer: Any,
        channel: str,
        handle: Callable[[dict[str, Any]], None],
        beside: bool = False,
    ) -> None:
        self.channel = channel
        self._layer = layer
        self._handle = handle
        self._buffers = _find_buffers(layer) if beside else None
        #: It ended within the layer's receive(), which has cleaned up then.
        self._cancelled = False
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"receive from {channel}"
        )

    async def stop(self) -> None:
        """Stop, once, and wait for the end."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._buffers is not None:
            self._buffers.pop(self.channel, None)
        elif not self._cancelled:
            await self._give_up_channel()

    async def wait(self, timeout: float) -> bool:
        """Wait for the end that a StopReceiving brings; return if it came."""
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        return bool(done)

    async def _run(self) -> None:
        while True:
            try:
                message = await self._receive()
            except asyncio.CancelledError:
                self._cancelled = True
                raise
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
                what = "A message from the channel layer was dropped."
                logger.exception(what, extra={"channel": self.channel})

    async def _receive(self) -> Any:
        if self._buffers is None:
            return await self._layer.receive(self.channel)
        return await self._buffers[self.channel].get()

    async def _give_up_channel(self) -> None:
        """Begin to receive and be cancelled at once: pub/sub unsubscribes then.

        So soon, nothing arrives that core could lose (see Relay.stop()).
        """
        receiving = asyncio.ensure_future(self._layer.receive(self.channel))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        if not receiving.cancelled():
            receiving.exception()  # Retrieved: nobody else will.


def _find_buffers(layer: Any) -> Any:
    """Return the queues of channels_redis.core's channels, None for other layers.

    In core 4.3 all channels of a process share one list in Redis: whoever reads it
    puts what is for other channels into ``layer.receive_buffer[channel]``. If its
    receive() is cancelled at that moment, the message is lost, whosever it was; so
    of this library's channels only the node's own is read by receive(), and that is
    never cancelled while a message may arrive.
    """
    buffers = getattr(layer, "receive_buffer", None)
    return buffers if isinstance(buffers, defaultdict) else None


class StopReceiving(Exception):
    """Raised by a handler to end its receiver."""

"""Reading one channel of the channel layer."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import Any, Awaitable, Callable, Iterable, Iterator

logger = logging.getLogger("channels_groups")

#: What a handler has yet to do. It yields what the task that runs it is to await.
Doing = Iterable[Awaitable[None]]

#: Seconds between two attempts while the layer or the store fails.
RETRY = 0.25
#: Seconds in which the layer should know that a channel has gone.
ENDING = 1.5


class Receiver:
    """Read one channel of the layer, whatever happens to the layer.

    Handlers run in the task that reads, and so does the beginning of a client's
    ``send``. Where that has to wait, the task stays with it, and another one reads
    on: a timeout within ``send`` cancels the task in which it has begun.

    ``beside``: another Receiver of this event loop and layer is always reading.
    """

    def __init__(
        self,
        layer: Any,
        channel: str,
        handle: Callable[[dict[str, Any]], Doing | None],
        beside: bool = False,
    ) -> None:
        self.channel = channel
        self._layer = layer
        self._handle = handle
        self._buffers = _find_buffers(layer) if beside else None
        #: It ended within the layer's receive(), which has cleaned up then.
        self._cancelled = False
        self._received = 0
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._read_on(iter(()))

    async def stop(self) -> None:
        """Stop, once, and wait for the end."""
        self._task.cancel()
        if not await self.wait(ENDING):
            # Pub/sub waits for a Redis that is away; then it is a stray.
            self._task.cancel()
            await asyncio.wait([self._end])
        if self._buffers is not None:
            self._buffers.pop(self.channel, None)
        elif not self._cancelled:
            await give_up(self._layer, self.channel)

    async def wait(self, timeout: float) -> bool:
        """Wait for the end that a StopReceiving brings; return if it came.

        It waits its turn: the time begins again as long as messages come before it.
        """
        seen = -1
        while self._received > seen and not self._end.done():
            seen = self._received
            await asyncio.wait([self._end], timeout=timeout)
        return self._end.done()

    def _read_on(self, doing: Iterator[Awaitable[None]]) -> None:
        """Let a new task finish what is being done, and read."""
        self._task = self._loop.create_task(
            self._run(doing), name=f"receive from {self.channel}"
        )
        self._task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task is self._task:
            self._end.set_result(None)

    async def _run(self, doing: Iterator[Awaitable[None]]) -> None:
        while True:
            try:
                slow = next(doing, None)
            except StopReceiving:
                return
            if slow is not None:
                self._read_on(doing)
                await slow
                return
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
            self._received += 1
            doing = self._do(message)

    def _do(self, message: dict[str, Any]) -> Iterator[Awaitable[None]]:
        try:
            yield from self._handle(message) or ()
        except StopReceiving:
            raise
        except Exception:
            what = "A message from the channel layer was dropped."
            logger.exception(what, extra={"channel": self.channel})

    async def _receive(self) -> Any:
        if self._buffers is None:
            return await self._layer.receive(self.channel)
        return await self._buffers[self.channel].get()


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


async def give_up(layer: Any, channel: str) -> None:
    """Begin to receive and be cancelled at once: pub/sub unsubscribes then.

    So soon, nothing arrives that core could lose (see Relay.stop()).
    """
    receiving = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.wait([receiving])
    if not receiving.cancelled():
        receiving.exception()  # Retrieved: nobody else will.


def find_strays(layer: Any) -> tuple[list[str], list[str]]:
    """Return the channels and groups that a layer subscribes to for nobody.

    channels_redis.pubsub 4.3 forgets a channel or group even if Redis is away and
    cannot be told, and redis-py subscribes again to all that it was not heard to
    leave: such subscriptions would stay for ever. For other layers there are none.
    """
    if not hasattr(type(layer), "_get_layer"):
        return [], []
    layer = layer._get_layer()
    subscribed: set[str] = set()
    for shard in layer._shards:
        subscribed |= shard._subscribed_to
        if shard._pubsub is not None:
            leaving = shard._pubsub.pending_unsubscribe_channels
            names = shard._pubsub.channels.keys() - leaving
            subscribed.update(name.decode() for name in names)
    strays = subscribed.difference(layer.channels, layer.groups)
    group_prefix = layer._get_group_channel_name("")
    groups = [name for name in strays if name.startswith(group_prefix)]
    channels = strays.difference(groups)
    return list(channels), [name[len(group_prefix) :] for name in groups]


async def give_up_stray(layer: Any, channel: str) -> None:
    """Unsubscribe from a channel of find_strays(), which nobody will ever use."""
    layer = layer._get_layer()
    shard = layer._get_shard(channel)
    await shard.subscribe(channel)  # It may be known to redis-py only.
    await shard.unsubscribe(channel)


class StopReceiving(Exception):
    """Raised by a handler to end its receiver."""

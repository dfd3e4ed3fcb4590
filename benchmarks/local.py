"""Connections without sockets: consumers in this process' own event loop."""

import asyncio
from collections.abc import Sequence
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from channels_groups.consumers import AsyncGroupConsumerMixin, GroupConsumerMixin

#: Connections that come or go at the same time.
AT_ONCE = 100


class Plain(AsyncWebsocketConsumer):
    """A consumer of Channels alone."""


class Untold(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    """Nobody listens to changes."""


class Told(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    """Everybody is told of every change."""

    async def group_changed(self, change: Any) -> None:
        pass


class Sync(GroupConsumerMixin, WebsocketConsumer):
    pass


class Connections:
    """
    `count` open connections of a consumer class, on one channel layer.

        async with Connections(Untold, "core", 100) as consumers:
    """

    def __init__(self, consumer: type, alias: str, count: int) -> None:
        attributes = {"channel_layer_alias": alias}
        self._class = type(consumer.__name__, (consumer,), attributes)
        self._count = count
        self._queues: list[asyncio.Queue[Any]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Sequence[Any]:
        consumers = [self._class() for _ in range(self._count)]
        for start in range(0, self._count, AT_ONCE):
            some = consumers[start : start + AT_ONCE]
            await asyncio.gather(*(self._open(one) for one in some))
        return consumers

    async def __aexit__(self, *exc: object) -> None:
        for start in range(0, self._count, AT_ONCE):
            for queue in self._queues[start : start + AT_ONCE]:
                queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await asyncio.wait(self._tasks[start : start + AT_ONCE])

    async def _open(self, consumer: Any) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        accepted = asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            if not accepted.done():
                accepted.set_result(None)

        scope = {"type": "websocket", "path": "/"}
        task = asyncio.create_task(consumer(scope, queue.get, send))
        self._queues.append(queue)
        self._tasks.append(task)
        queue.put_nowait({"type": "websocket.connect"})
        await accepted

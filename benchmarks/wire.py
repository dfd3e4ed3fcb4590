"""Bytes on the wire for what clients are shown, with members and with counts only."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.test.utils import override_settings

from channels_groups.consumers import AsyncGroupStateConsumerMixin
from tests.helpers.server import RedisServer

from .report import Report, number

JOINS = 10  # a second
ALIAS = "core"


class Shown(AsyncGroupStateConsumerMixin, AsyncJsonWebsocketConsumer):
    """A member with a name and a colour, which counts what its client is sent."""

    channel_layer_alias = ALIAS

    async def connect(self) -> None:
        await self.accept()
        await self.set_group("room")

    def get_group_user_id(self) -> str:
        return str(self.scope["number"])

    def get_group_info(self) -> dict[str, Any]:
        return {"name": f"Visitor {self.scope['number']}", "colour": "#2348aa"}


class Room:
    """Members without sockets, in this process."""

    def __init__(self) -> None:
        self.sent: dict[str, list[int]] = {"group.state": [], "group.change": []}
        self._queues: list[asyncio.Queue[Any]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        shown = asyncio.Event()

        async def send(message: Any) -> None:
            if "text" in message:
                kind = json.loads(message["text"])["type"]
                self.sent[kind].append(len(message["text"].encode()))
                shown.set()

        scope = {"type": "websocket", "path": "/", "number": len(self._tasks)}
        self._queues.append(queue)
        self._tasks.append(asyncio.create_task(Shown()(scope, queue.get, send)))
        queue.put_nowait({"type": "websocket.connect"})
        await shown.wait()

    async def close(self) -> None:
        for queue in self._queues:
            queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait(self._tasks)


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    members, seconds = (30, 1) if report.quick else (1000, 10)
    rows = [
        await measure("with members", None, members, seconds),
        await measure("counts only", members // 2, members, seconds),
    ]
    report.add(f"a room of {members:,} with {JOINS} joins a second", rows, rows)


async def measure(
    name: str, limit: int | None, members: int, seconds: int
) -> dict[str, Any]:
    """Let so many be there, and then some join; return a row of the table."""
    config = {**settings.CHANNELS_GROUPS, ALIAS: {"STATE_LIMIT": limit}}
    with override_settings(CHANNELS_GROUPS=config):
        room = Room()
        for start in range(0, members, 20):
            some = min(20, members - start)
            await asyncio.gather(*(room.open() for _ in range(some)))
        await asyncio.sleep(0.3 * seconds)  # Until all have been told of all.
        for sizes in room.sent.values():
            sizes.clear()
        began = time.monotonic()
        joining = []
        for _ in range(JOINS * seconds):
            joining.append(asyncio.create_task(room.open()))
            await asyncio.sleep(1 / JOINS)
        await asyncio.gather(*joining)
        passed = time.monotonic() - began
        await asyncio.sleep(1.5)
        sent = {kind: list(sizes) for kind, sizes in room.sent.items()}
        await room.close()
    changes = sent["group.change"]
    clients = members + JOINS * seconds / 2  # On average.
    return {
        "": name,
        "joins a second": number(JOINS * seconds / passed),
        "bytes a change": number(sum(changes) / len(changes)),
        "changes a second and client": number(len(changes) / clients / passed),
        "bytes a second and client": number(sum(changes) / clients / passed),
        "bytes of the state on entering": number(max(sent["group.state"])),
    }

"""From the SIGKILL of a process to the last leave signal in a survivor."""

import asyncio
import time
from pathlib import Path
from typing import Any

from channels_groups import signals
from tests.helpers.server import RedisServer

from .local import Connections, Untold
from .report import Report
from .servers import Clients, Server

TIMEOUT = 30
SIZES = (1, 100, 1000)


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    clients = await Clients.start()
    try:
        sizes = (5,) if report.quick else SIZES
        contenders = {
            f"{size:,} members": Crash(clients, scratch, size).seconds for size in sizes
        }
        await report.compare(
            "SIGKILL to the last leave",
            "s",
            contenders,
            against=f"{sizes[0]:,} members",
            targets={name: "<= 3 s" for name in contenders},
        )
    finally:
        await clients.stop()


class Crash:
    """A server process that dies, while this process has a connection of its own."""

    def __init__(self, clients: Clients, scratch: Path, members: int) -> None:
        self._clients = clients
        self._scratch = scratch
        self._members = members

    async def seconds(self) -> float:
        server = await Server.start("uvicorn", self._scratch)
        try:
            async with Connections(Untold, "default", 1) as (survivor,):
                await survivor.join_group("survivors")
                urls = [server.url("groups/")]
                await self._clients.do("connect", urls=urls, count=self._members)
                await asyncio.sleep(2)  # A node evicts after two renewals of its own.
                return await self._kill(server)
        finally:
            server.stop()
            await self._clients.do("close")

    async def _kill(self, server: Server) -> float:
        lost = asyncio.Event()
        left = 0

        async def receive(reason: str, **kwargs: Any) -> None:
            nonlocal left
            left += reason == "lost"
            if left == self._members:
                lost.set()

        signals.group_leave.connect(receive)
        try:
            server.process.kill()
            start = time.perf_counter()
            await asyncio.wait_for(lost.wait(), TIMEOUT)
            return time.perf_counter() - start
        finally:
            signals.group_leave.disconnect(receive)

"""Everybody enters one room as fast as they can, is told of all the others, and goes.

Then a server is killed and everybody comes back to another one at once. What counts
is how the cost grows with the crowd.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from channels_groups.manager import get_group
from tests.helpers.eventually import aeventually
from tests.helpers.server import RedisServer

from .report import Report, number
from .servers import Clients, Server

SIZES = (1_000, 3_000, 10_000)
ROOM = "room"


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    clients = await Clients.start()
    try:
        sizes = (50,) if report.quick else SIZES
        rows = [await enter_and_go(clients, redis, scratch, size) for size in sizes]
        report.add("one room, everybody told of joins, one uvicorn", rows, rows)
        sizes = (50,) if report.quick else SIZES[:2]
        rows = [await come_back(clients, redis, scratch, size) for size in sizes]
        report.add("reconnect after a SIGKILL, to another uvicorn", rows, rows)
    finally:
        await clients.stop()


async def enter_and_go(
    clients: Clients, redis: RedisServer, scratch: Path, size: int
) -> dict[str, Any]:
    server = await Server.start("uvicorn", scratch)
    try:
        urls = [server.url("told/")]
        with Traffic(redis, size) as entering:
            answer = await clients.do("connect", urls=urls, count=size, at_once=200)
        cpu = server.cpu()
        await asyncio.sleep(1)
        told = (await clients.do("wait", frames=1))["frames"]
        with Traffic(redis, size) as going:
            gone = await clients.do("close")
            await aeventually(get_group(ROOM).acount, equals=0, timeout=60)
        return {
            "members": f"{size:,}",
            "refused": answer["refused"],
            "s": number(answer["seconds"]),
            "clients' CPU s": number(answer["cpu"]),
            "server's": number(cpu),
            "commands a join": number(entering.commands),
            "in scripts too": number(entering.all_commands),
            "bytes a join": number(entering.bytes),
            "frames a member": number(told / size),
            "peak MB": number(server.memory("VmHWM") / 1024),
            "s to go": number(gone["seconds"]),
            "commands a leave": number(going.commands),
        }
    finally:
        server.stop()


async def come_back(
    clients: Clients, redis: RedisServer, scratch: Path, size: int
) -> dict[str, Any]:
    servers = [await Server.start("uvicorn", scratch) for _ in range(2)]
    others = await Clients.start()
    group = get_group(ROOM)
    try:
        await clients.do("connect", urls=[servers[0].url("told/")], count=size)
        servers[0].process.kill()
        start = time.perf_counter()
        answer = await others.do("connect", urls=[servers[1].url("told/")], count=size)
        await aeventually(group.acount, equals=size, timeout=60)
        right = time.perf_counter() - start
        await others.do("close")
        return {
            "members": f"{size:,}",
            "refused": answer["refused"],
            "s until all are back": number(answer["seconds"]),
            "s until the count is right": number(right),
        }
    finally:
        await others.stop()
        await clients.do("close")
        for server in servers:
            server.stop()


class Traffic:
    """What Redis did meanwhile, for each of so many members."""

    def __init__(self, redis: RedisServer, members: int) -> None:
        self._redis = redis
        self._members = members

    def __enter__(self) -> "Traffic":
        with self._redis.client() as client:
            client.config_resetstat()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._redis.client() as client:
            stats, calls = client.info("stats"), client.info("commandstats")
        counts = {name: one["calls"] for name, one in calls.items()}
        scripts = counts.get("cmdstat_evalsha", 0) + counts.get("cmdstat_eval", 0)
        outside = sum(counts.get(f"cmdstat_{name}", 0) for name in OUTSIDE)
        volume = stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
        #: Calls by clients; what scripts call besides; bytes, both ways.
        self.commands = (scripts + outside) / self._members
        self.all_commands = sum(counts.values()) / self._members
        self.bytes = volume / self._members


#: Commands that channels_redis sends and the library's scripts do not call.
OUTSIDE = ("bzpopmin", "zremrangebyscore", "zcount", "zrange", "del", "publish")

"""Everybody enters one room as fast as they can, is told of all the others, and goes.

Then a server is killed and everybody comes back to another one at once. What counts
is how the cost grows with the crowd.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from channels_groups.manager import get_group
from tests.helpers.eventually import aeventually
from tests.helpers.server import RedisServer

from .report import Report, spread
from .servers import Clients, Server
from .traffic import Traffic

#: Connections, and the processes that they are spread over.
ENTERING = ((1_000, 1), (3_000, 1), (3_000, 3), (10_000, 1))
RETURNING = (1_000, 10_000)
#: It takes a minute: once has to do.
LARGE = 10_000
ROOM = "room"
TIMEOUT = 180

#: What one storm measured, each with a name.
Measures = dict[str, float]
Storm = Callable[[], Awaitable[Measures]]


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    clients = await Clients.start()
    try:
        enter = partial(enter_and_go, clients, redis, scratch)
        crowds = ((20, 1), (20, 2)) if report.quick else ENTERING
        title = "into one room, everybody told of joins, of so many uvicorn"
        await repeat(report, title, {crowd: partial(enter, *crowd) for crowd in crowds})
        sizes = (20,) if report.quick else RETURNING
        title = "reconnect after a SIGKILL, to another uvicorn"
        back = partial(come_back, clients, scratch)
        await repeat(report, title, {(size, 1): partial(back, size) for size in sizes})
    finally:
        await clients.stop()


async def repeat(
    report: Report, title: str, storms: dict[tuple[int, int], Storm]
) -> None:
    """Let storms of so many members and processes take turns; a column for each."""
    measured: dict[str, list[Measures]] = {}
    for turn in range(report.rounds):
        for (size, processes), storm in storms.items():
            name = f"{size:,} in {processes}"
            if size == LARGE:
                name += ", once"
            if turn == 0 or size < LARGE:
                measured.setdefault(name, []).append(await storm())
    first = next(iter(measured.values()))[0]
    rows = [
        {
            "": what,
            **{
                name: spread([one[what] for one in rounds])
                for name, rounds in measured.items()
            },
        }
        for what in first
    ]
    report.add(title, rows, measured, report.rounds)


async def enter_and_go(
    clients: Clients, redis: RedisServer, scratch: Path, size: int, processes: int
) -> Measures:
    servers = [await Server.start("uvicorn", scratch) for _ in range(processes)]
    cpu = sum(server.cpu() for server in servers)
    try:
        urls = [server.url("told/") for server in servers]
        with Traffic([redis]) as entering:
            answer = await clients.do(
                "connect", urls=urls, count=size // processes, at_once=200
            )
        cpu = sum(server.cpu() for server in servers) - cpu
        members = len(urls) * (size // processes)
        await asyncio.sleep(1)
        told = (await clients.do("wait", frames=1))["frames"]
        with Traffic([redis]) as going:
            gone = await clients.do("close")
            await aeventually(get_group(ROOM).acount, equals=0, timeout=TIMEOUT)
        return {
            "seconds": answer["seconds"],
            "handshakes refused, and tried again": answer["refused"],
            "the clients' share of a core": answer["cpu"] / answer["seconds"],
            "CPU seconds of the servers": cpu,
            "commands of clients for each join": entering.clients / members,
            "commands in scripts for each join": entering.scripts / members,
            "bytes from and to Redis for each join": entering.bytes / members,
            "frames that each client got": told / members,
            "peak MB of a server": max(one.memory("VmHWM") for one in servers) / 1024,
            "seconds until all have gone": gone["seconds"],
            "commands of clients for each leave": going.clients / members,
            "commands in scripts for each leave": going.scripts / members,
        }
    finally:
        for server in servers:
            server.stop()


async def come_back(clients: Clients, scratch: Path, size: int) -> Measures:
    servers = [await Server.start("uvicorn", scratch) for _ in range(2)]
    others = await Clients.start()
    group = get_group(ROOM)
    try:
        await clients.do("connect", urls=[servers[0].url("told/")], count=size)
        servers[0].process.kill()
        start = time.perf_counter()
        answer = await others.do("connect", urls=[servers[1].url("told/")], count=size)
        await aeventually(group.acount, equals=size, timeout=TIMEOUT)
        right = time.perf_counter() - start
        await others.do("close")
        return {
            "seconds until all are back": answer["seconds"],
            "seconds until the count is right": right,
            "handshakes refused, and tried again": answer["refused"],
            "the clients' share of a core": answer["cpu"] / answer["seconds"],
        }
    finally:
        await others.stop()
        await clients.do("close")
        for server in servers:
            server.stop()

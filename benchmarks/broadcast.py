"""One message to everybody: deliveries per second, and until everybody has it.

Each server runs in a process of its own, all clients together in another. The
share of the clients' process shows whether they were the limit.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.helpers.server import RedisServer

from .peers.node import find_socketio
from .report import Report, number
from .servers import Clients, Server

SIZE = 64
#: Frames in a burst, so that each takes about as long.
BURSTS = {"channels": 10, "channels-sync": 4, "groups-plain": 10}
BURST = 60
SOCKETIO = "socket.io/?EIO=4&transport=websocket"


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    count = 50 if report.quick else 500
    clients = await Clients.start()
    try:
        for kind in ("uvicorn", "daphne"):
            await compare_on(report, clients, scratch, kind, count)
        await compare_peers(report, clients, scratch, count)
        await compare_frames(report, clients, scratch, count)
        await compare_processes(report, clients, scratch, count // 2)
    finally:
        await clients.stop()


async def compare_on(
    report: Report, clients: Clients, scratch: Path, kind: str, count: int
) -> None:
    """Channels and this library on one server."""
    server = await Server.start(kind, scratch)
    try:
        names = ("channels", "groups", "channels-sync", "groups-sync", "groups-plain")
        rooms = {
            name: Room(report, clients, [server], f"{name}/", count) for name in names
        }
        target = ">= 12" if kind == "uvicorn" else ">= 5"
        title = f"{kind}, {count} sockets, {SIZE} B, deliveries a second"
        await compare_rates(report, title, rooms, "channels", {"groups": target})
        title = f"{kind}, {count} sockets, until everybody has one message"
        await compare_latencies(report, title, rooms, "channels")
    finally:
        server.stop()


async def compare_peers(
    report: Report, clients: Clients, scratch: Path, count: int
) -> None:
    """Peers that are no part of Channels, each on a server of its own.

    They send over Redis' pub/sub, except for broadcast(), which needs no Redis.
    """
    kinds = {
        "groups, pub/sub": ("uvicorn", "groups/"),
        "groups, core": ("uvicorn", "groups/"),
        "python-socketio": ("python-socketio", SOCKETIO),
        "websockets.broadcast()": ("websockets", ""),
    }
    node = None if report.quick else find_socketio()
    if node:
        kinds["Socket.IO on Node"] = str(node), SOCKETIO
    servers, rooms = [], {}
    try:
        for name, (kind, path) in kinds.items():
            layer = "core" if "core" in name else "pubsub"
            server = await Server.start(kind, scratch, BENCHMARK_LAYER=layer)
            servers.append(server)
            rooms[name] = Room(report, clients, [server], path, count)
        title = f"peers, {count} sockets, {SIZE} B, deliveries a second"
        targets = {
            "python-socketio": "<= 0.33",
            "websockets.broadcast()": "<= 2",
            "Socket.IO on Node": "<= 1.33",
        }
        await compare_rates(report, title, rooms, "groups, pub/sub", targets)
    finally:
        for server in servers:
            server.stop()


async def compare_frames(
    report: Report, clients: Clients, scratch: Path, count: int
) -> None:
    """Small and large, text and JSON."""
    server = await Server.start("uvicorn", scratch)
    try:
        requests = {"64 B": "64 text", "64 B JSON": "64 json", "16 kB": "16384 text"}
        rooms = {
            name: Room(report, clients, [server], "groups/", count, request)
            for name, request in requests.items()
        }
        title = f"uvicorn, {count} sockets, frames, deliveries a second"
        await compare_rates(report, title, rooms, "64 B")
    finally:
        server.stop()


async def compare_processes(
    report: Report, clients: Clients, scratch: Path, count: int
) -> None:
    """Four processes, all of them reached from one."""
    processes = 2 if report.quick else 4
    servers = [await Server.start("uvicorn", scratch) for _ in range(processes)]
    try:
        names = ("channels", "groups")
        rooms = {
            name: Room(report, clients, servers, f"{name}/", count) for name in names
        }
        title = f"{processes} uvicorn of {count} sockets, {SIZE} B, deliveries a second"
        await compare_rates(report, title, rooms, "channels")
        title = f"{processes} uvicorn of {count} sockets, until all have one message"
        await compare_latencies(report, title, rooms, "channels")
    finally:
        for server in servers:
            server.stop()


class Room:
    """Sockets in one room, connected for each sample anew."""

    def __init__(
        self,
        report: Report,
        clients: Clients,
        servers: list[Server],
        path: str,
        count: int,
        request: str = f"{SIZE} text",
    ) -> None:
        self._clients = clients
        self._servers = servers
        self._path = path
        self._count = count
        self._request = request
        burst = BURSTS.get(path.strip("/"), BURST)
        self._burst = min(burst, 5) if report.quick else burst
        #: Of the last rate: what the clients' and the first server's process used.
        self.shares: list[tuple[float, float]] = []

    async def rate(self) -> float:
        """Return deliveries a second in a burst."""
        async with self:
            await self._send(2)
            cpu = self._servers[0].cpu()
            answer = await self._send(self._burst)
        seconds = answer["seconds"]
        used = self._servers[0].cpu() - cpu
        self.shares.append((answer["cpu"] / seconds, used / seconds))
        return answer["frames"] / seconds

    async def latency(self) -> float:
        """Return milliseconds until everybody has one message."""
        async with self:
            await self._send(2)
            times = [(await self._send(1))["seconds"] for _ in range(3)]
        return sorted(times)[1] * 1e3

    async def __aenter__(self) -> None:
        urls = [server.url(self._path) for server in self._servers]
        speaks = "socketio" if self._path == SOCKETIO else "websocket"
        await self._clients.do("connect", urls=urls, count=self._count, speaks=speaks)

    async def __aexit__(self, *exc: object) -> None:
        await self._clients.do("close")

    async def _send(self, count: int) -> dict[str, Any]:
        frames = count * self._count * len(self._servers)
        return await self._clients.do(
            "burst", request=f"{count} {self._request}", frames=frames
        )


async def compare_rates(
    report: Report,
    title: str,
    rooms: dict[str, Room],
    against: str,
    targets: dict[str, str] | None = None,
) -> None:
    samples: dict[str, Callable[[], Awaitable[float]]]
    samples = {name: room.rate for name, room in rooms.items()}
    await report.compare(title, "a second", samples, against=against, targets=targets)
    rows = []
    for name, room in rooms.items():
        clients, server = (sorted(one)[len(one) // 2] for one in zip(*room.shares))
        rows.append(
            {"": name, "clients' CPU": number(clients), "server's": number(server)}
        )
    report.add("of that, share of a core", rows)


async def compare_latencies(
    report: Report, title: str, rooms: dict[str, Room], against: str
) -> None:
    samples = {name: room.latency for name, room in rooms.items()}
    await report.compare(title, "ms", samples, against=against)

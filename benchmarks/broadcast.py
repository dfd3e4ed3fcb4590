"""One message to everybody: deliveries per second, and until everybody has it.

Each server runs in a process of its own, all clients together in another. The
share of the clients' process shows whether they were the limit.
"""

from pathlib import Path
from typing import Any

from tests.helpers.server import RedisServer

from .peers.node import find_socketio
from .report import Against, Report, spread
from .servers import Clients, Server

SIZE = 64
#: Frames in a burst, so that each takes about as long.
BURSTS = {"channels": 10, "channels-sync": 4, "groups-plain": 10}
BURST = 60
SOCKETIO = "socket.io/?EIO=4&transport=websocket"
FRAMES = {"64 B": "64 text", "64 B JSON": "64 json", "16 kB": "16384 text"}


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    count = 20 if report.quick else 500
    clients = await Clients.start()
    try:
        for kind in ("uvicorn", "daphne"):
            await compare_on(report, clients, scratch, kind, count)
        await compare_peers(report, clients, scratch, count)
        await compare_processes(report, clients, scratch, count // 2)
    finally:
        await clients.stop()


async def compare_on(
    report: Report, clients: Clients, scratch: Path, kind: str, count: int
) -> None:
    """Channels and this library on one server; then frames, small and large."""
    server = await Server.start(kind, scratch)
    try:
        names = ("channels", "groups", "channels-sync", "groups-sync", "groups-plain")
        rooms = {
            name: Room(report, clients, [server], f"{name}/", count) for name in names
        }
        against = {"channels": ">= 12" if kind == "uvicorn" else ">= 5"}
        title = f"{kind}, {count} sockets, {SIZE} B"
        await compare_rooms(report, title, rooms, against)
        rooms = {
            name: Room(report, clients, [server], "groups/", count, request)
            for name, request in FRAMES.items()
        }
        title = f"{kind}, {count} sockets, frames"
        await compare_rooms(report, title, rooms, {"64 B": ""})
    finally:
        server.stop()


async def compare_peers(
    report: Report, clients: Clients, scratch: Path, count: int
) -> None:
    """Peers that are no part of Channels, each on a server of its own.

    They send over Redis' pub/sub, except for broadcast(), which needs no Redis.
    One sender of ours awaits each message's way into Redis, and one on Node none:
    two senders keep ours busy while one of them waits.
    """
    kinds = {
        "groups, core": ("uvicorn", "groups/"),
        "groups, pub/sub": ("uvicorn", "groups/"),
        "python-socketio": ("python-socketio", SOCKETIO),
        "websockets.broadcast()": ("websockets", ""),
    }
    against = {"python-socketio": ">= 3", "websockets.broadcast()": ">= 0.5"}
    node = None if report.quick else find_socketio()
    if node:
        kinds["Socket.IO on Node"] = str(node), SOCKETIO
        against["Socket.IO on Node"] = ">= 0.75"
        against["Socket.IO on Node, 2 senders"] = ""
    servers, rooms = [], {}
    try:
        for name, (kind, path) in kinds.items():
            layer = "pubsub" if "pub/sub" in name else "core"
            server = await Server.start(kind, scratch, BENCHMARK_LAYER=layer)
            servers.append(server)
            rooms[name] = Room(report, clients, [server], path, count)
            if name.startswith(("groups", "Socket.IO")):
                two = Room(report, clients, [server], path, count, senders=2)
                rooms[f"{name}, 2 senders"] = two
        title = f"peers, {count} sockets, {SIZE} B"
        await compare_rooms(report, title, rooms, against)
    finally:
        for server in servers:
            server.stop()


async def compare_processes(
    report: Report, clients: Clients, scratch: Path, count: int
) -> None:
    """Four processes, all of them reached from one."""
    processes = 2 if report.quick else 4
    servers = [await Server.start("uvicorn", scratch) for _ in range(processes)]
    try:
        rooms = {
            name: Room(report, clients, servers, f"{name}/", count)
            for name in ("channels", "groups")
        }
        title = f"{processes} uvicorn of {count} sockets, {SIZE} B"
        await compare_rooms(report, title, rooms, {"channels": ""})
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
        senders: int = 1,
    ) -> None:
        self._clients = clients
        self._servers = servers
        self._path = path
        self._count = count
        self._request = request
        self._senders = senders
        burst = BURSTS.get(path.strip("/"), BURST) // senders
        self._burst = min(burst, 2) if report.quick else burst
        #: Of each sample: milliseconds until everybody had one message, and which
        #: shares of a core the clients' and the first server's process used.
        self.latencies: list[float] = []
        self.clients_shares: list[float] = []
        self.server_shares: list[float] = []

    async def rate(self) -> float:
        """Return deliveries a second in a burst."""
        async with self:
            await self._send(2)
            times = [(await self._send(1))["seconds"] for _ in range(3)]
            cpu = self._servers[0].cpu()
            answer = await self._send(self._burst, self._senders)
        seconds = answer["seconds"]
        used = self._servers[0].cpu() - cpu
        self.latencies.append(sorted(times)[1] * 1e3)
        self.clients_shares.append(answer["cpu"] / seconds)
        self.server_shares.append(used / seconds)
        return answer["frames"] / seconds

    async def __aenter__(self) -> None:
        urls = [server.url(self._path) for server in self._servers]
        speaks = "socketio" if self._path == SOCKETIO else "websocket"
        await self._clients.do("connect", urls=urls, count=self._count, speaks=speaks)

    async def __aexit__(self, *exc: object) -> None:
        await self._clients.do("close")

    async def _send(self, count: int, senders: int = 1) -> dict[str, Any]:
        frames = count * senders * self._count * len(self._servers)
        request = f"{count} {self._request}"
        return await self._clients.do(
            "burst", request=request, frames=frames, senders=senders
        )


async def compare_rooms(
    report: Report, title: str, rooms: dict[str, Room], against: Against
) -> None:
    """Print deliveries, how long one message took, and the processes' shares."""
    await report.compare(
        f"{title}, deliveries a second",
        "a second",
        {name: room.rate for name, room in rooms.items()},
        against=against,
    )
    report.add_ratios(
        f"{title}, until everybody has one message",
        "ms",
        {name: room.latencies for name, room in rooms.items()},
        against=dict.fromkeys(against, ""),
    )
    rows = [
        {
            "": name,
            "clients' process": spread(room.clients_shares),
            "server's": spread(room.server_shares),
        }
        for name, room in rooms.items()
    ]
    report.add(f"{title}, share of a core", rows, None, report.rounds)

"""What the mixin adds to one idle connection: connect time and memory."""

from pathlib import Path

from tests.helpers.server import RedisServer

from .report import Report
from .servers import Clients, Server


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    count = 20 if report.quick else 1000
    clients = await Clients.start()
    probes = {
        "Channels alone": Probe(clients, scratch, "bare/", count),
        "with the mixin": Probe(clients, scratch, "bare-groups/", count),
        "with the mixin, in a group": Probe(clients, scratch, "groups/", count),
    }
    try:
        await report.compare(
            f"{count:,} connects, 50 at once",
            "us a connect",
            {name: probe.connect for name, probe in probes.items()},
            against="Channels alone",
        )
        report.add_ratios(
            f"memory of the server process for each of {count:,}",
            "kB a connection",
            {name: probe.sizes for name, probe in probes.items()},
            against="Channels alone",
        )
    finally:
        await clients.stop()


class Probe:
    """Connections of one kind on a server that has just started."""

    def __init__(self, clients: Clients, scratch: Path, path: str, count: int) -> None:
        self._clients = clients
        self._scratch = scratch
        self._path = path
        self._count = count
        #: kB of the server for each connection, of each round.
        self.sizes: list[float] = []

    async def connect(self) -> float:
        """Return microseconds for each connect."""
        server = await Server.start("uvicorn", self._scratch)
        try:
            urls = [server.url(self._path)]
            await self._clients.do("connect", urls=urls, count=5)
            before = server.memory()
            answer = await self._clients.do("connect", urls=urls, count=self._count)
            self.sizes.append((server.memory() - before) / self._count)
            await self._clients.do("close")
        finally:
            server.stop()
        return answer["seconds"] / self._count * 1e6

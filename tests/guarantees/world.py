"""Three processes with many connections each, and what their logs say."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from websockets.exceptions import InvalidStatus

from benchmarks.servers import Clients

from ..helpers.client import Client, connect
from ..helpers.cluster import Cluster, Node
from ..helpers.eventually import aeventually
from ..helpers.proxy import TcpProxy
from ..helpers.server import RedisServer

APPLICATION = "tests.helpers.application:application"
ROOMS = 50
SERVERS = ("uvicorn", "daphne", "uvicorn")
#: Seconds after which a measurement is given up.
PATIENCE = 60

Event = dict[str, Any]


class World:
    """
    Processes of the demo on one store, the last of them behind a proxy.

    Each has `connections` clients, which live in a process of their own, and two
    probes: one that stays in a room with the other processes' and one that moves.
    """

    def __init__(
        self, directory: Path, *, layer: str, connections: int, minutes: float = 20
    ) -> None:
        self.connections = connections
        self.minutes = minutes
        self.redis = RedisServer()
        self.redis.start()
        self.proxy = TcpProxy(self.redis.url)
        self.proxy.start()
        self.cluster = Cluster(
            self.redis.url,
            directory,
            layer=layer,
            env={"PYTHONASYNCIODEBUG": "", "PYTHONWARNINGS": "default"},
            application=APPLICATION,
        )
        #: All memberships of one process.
        self.members = connections + 2
        self.probes: dict[Node, Client] = {}
        self.movers: dict[Node, Client] = {}
        self.events: list[Event] = []
        self._clients: dict[Node, Clients] = {}
        self._directory = directory
        self._read: dict[Node, int] = {}

    async def __aenter__(self) -> World:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cluster.close()
        self.proxy.close()
        self.redis.close()
        for probe in [*self.probes.values(), *self.movers.values()]:
            await probe.close()
        for clients in self._clients.values():
            await clients.do("close")
            await clients.stop()

    async def _start(self) -> None:
        nodes = [self.cluster.add(server) for server in SERVERS[:-1]]
        nodes.append(self.cluster.add(SERVERS[-1], redis_url=self.proxy.url))
        for node in nodes:
            await asyncio.to_thread(node.wait_ready)
            self._clients[node] = await Clients.start()
        refused = (InvalidStatus,)
        await aeventually(self._lets_in, timeout=PATIENCE, ignoring=refused)
        await asyncio.gather(*(self.fill(node) for node in nodes))

    async def _lets_in(self) -> bool:
        """Enter; a Redis that has just started lets nobody in."""
        async with connect(self.cluster.nodes[0], "door", "first"):
            return True

    def node(self, server: str) -> Node:
        """Return the first process of this server."""
        return self.cluster.nodes[SERVERS.index(server)]

    async def fill(self, node: Node) -> None:
        """Connect all clients of a process."""
        names = [f"room {number}" for number in range(ROOMS)]
        urls = [node.ws_url(name, node.name) for name in names]
        each = self.connections // ROOMS
        await self._clients[node].do("connect", urls=urls, count=each)
        self.probes[node] = await connect(node, "probes", node.name).open()
        self.movers[node] = await connect(node, "there", node.name).open()

    async def replace(self, node: Node) -> None:
        """Start a process again that has ended, and connect its clients again."""
        await self._clients[node].do("close")
        await self.probes[node].close()
        await self.movers[node].close()
        await asyncio.to_thread(node.restart)
        await self.fill(node)

    # What the logs say

    def read(self) -> list[Event]:
        """Read what the processes have logged since the last time."""
        for node in self.cluster.nodes:
            path = self._directory / node.name / "events.jsonl"
            with path.open("rb") as file:
                file.seek(self._read.get(node, 0))
                text = file.read()
            whole = text.rpartition(b"\n")[0]
            self._read[node] = self._read.get(node, 0) + len(whole) + bool(whole)
            self.events += map(json.loads, whole.splitlines())
        return self.events

    async def seconds(
        self, since: float, number: int, wanted: Callable[[Event], bool]
    ) -> list[float]:
        """Wait for so many events; return how long after `since` each came."""

        def came() -> list[Event]:
            self.read()
            return [one for one in self.events if one["time"] > since and wanted(one)]

        await aeventually(lambda: len(came()) >= number, timeout=PATIENCE)
        await asyncio.sleep(0.5)  # There may be more than there should be.
        found = came()
        if len(found) != number:
            raise AssertionError(f"{len(found)} events instead of {number}")
        return [one["time"] - since for one in found]

    # What is right

    async def right(self) -> None:
        """Wait until counts are right everywhere, joins work and everybody hears."""
        nodes = self.cluster.nodes
        await asyncio.gather(
            *(self._counts_are_right(node) for node in nodes),
            *(self._joins_work(node) for node in nodes),
            self._everybody_hears(),
        )

    async def _counts_are_right(self, node: Node) -> None:
        memberships = len(SERVERS) * self.members

        async def counts() -> tuple[int, set[int]]:
            told = await asyncio.to_thread(ask, node)
            sizes = {
                size
                for name, room in told["rooms"].items()
                if name.startswith("room ")
                for size in (room["count"], len(room["members"]))
            }
            return told["membership_count"], sizes

        size = len(SERVERS) * (self.connections // ROOMS)
        await aeventually(
            counts, equals=(memberships, {size}), timeout=PATIENCE, ignoring=(OSError,)
        )

    async def _joins_work(self, node: Node) -> None:
        mover = self.movers[node]

        async def move() -> bool:
            seen = len(mover.received)
            await mover.send(type="move", room="there" if mover.room is None else None)
            answer = await aeventually(
                lambda: answer_in(mover.received[seen:]), timeout=PATIENCE
            )
            return bool(answer["type"] == "welcome")

        for _ in "out", "in":
            await aeventually(move, timeout=PATIENCE)

    async def _everybody_hears(self) -> None:
        probes = list(self.probes.values())

        async def hear() -> bool:
            text = f"at {time.time()}"
            await probes[0].say(text)
            try:
                for probe in probes:
                    await probe.receive("said", text=text, timeout=0.3)
            except AssertionError:
                return False
            return True

        await aeventually(hear, timeout=PATIENCE)


def answer_in(messages: Sequence[Event]) -> Event | None:
    answers = [one for one in messages if one["type"] in ("welcome", "error")]
    return answers[0] if answers else None


def ask(node: Node) -> Any:
    """Return all that a process believes."""
    with urllib.request.urlopen(f"{node.url}/test/rooms/", timeout=10) as response:
        return json.load(response)

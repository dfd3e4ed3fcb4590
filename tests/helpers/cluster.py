"""Server processes of the demo on one Redis, and what may happen to them."""

import io
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from .eventually import eventually
from .processes import ChildProcess

PROJECT = Path(__file__).resolve().parents[2]
APPLICATION = "testproject.asgi:application"
START_TIMEOUT = 30
REQUEST_TIMEOUT = 10

COMMANDS = {
    "daphne": ("-m", "daphne", "-b", "127.0.0.1", "-p"),
    "uvicorn": ("-m", "uvicorn", "--host", "127.0.0.1", "--port"),
}
# What each server says once it listens, with the port that the kernel chose.
LISTENING = re.compile(
    r"(?:Listening on TCP address 127\.0\.0\.1:|running on http://127\.0\.0\.1:)(\d+)"
)
COMPLAINT = re.compile(
    r"Traceback|Warning|\bERROR\b|\bCRITICAL\b|never (?:awaited|retrieved)"
    r"|Task was destroyed|Exception ignored"
)


class Node:
    """
    One server process of the demo, "daphne" or "uvicorn".

    It keeps its port and its files over `restart()`.
    """

    def __init__(
        self,
        server: str,
        directory: Path,
        *,
        layer: str = "core",
        redis_url: str = "",
        env: Mapping[str, str] | None = None,
        application: str = APPLICATION,
    ) -> None:
        self.server = server
        self.application = application
        self.name = directory.name
        self.port = 0
        self.process: ChildProcess | None = None
        self._directory = directory
        self._directory.mkdir(parents=True)
        self._env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "testproject.settings",
            "CHANNEL_LAYER": layer,
            "REDIS_URL": redis_url,
            "DEMO_PROCESS_NAME": self.name,
            "GROUP_EVENT_LOG": str(self._event_log),
            "PYTHONASYNCIODEBUG": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            **(env or {}),
        }

    def __repr__(self) -> str:
        return f"<Node {self.name}: {self.server} on port {self.port}>"

    def start(self) -> None:
        """Start the process; `wait_ready()` waits until it serves."""
        self._log_start = self._log_path.stat().st_size if self.process else 0
        command = [sys.executable, *COMMANDS[self.server], str(self.port)]
        self.process = ChildProcess(
            [*command, self.application], self._log_path, cwd=PROJECT, env=self._env
        )

    def wait_ready(self) -> None:
        """Wait until it listens and answers a request."""
        self.port = eventually(self._listening_port, timeout=START_TIMEOUT)
        self.api("rooms/")

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same port."""
        if self.running:
            self.kill()
        self.start()
        self.wait_ready()

    def kill(self) -> int:
        """End it at once (SIGKILL)."""
        return self._running_process().kill()

    def terminate(self) -> int:
        """Tell it to stop (SIGTERM), wait for its end, return its exit code."""
        return self._running_process().terminate()

    def interrupt(self) -> int:
        """Do as Ctrl-C does (SIGINT), wait for its end, return its exit code."""
        return self._running_process().interrupt()

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP); its sockets stay open."""
        self._running_process().freeze()

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self._running_process().thaw()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.running

    @property
    def pid(self) -> int:
        return self._running_process().pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ws_url(self, room: str, name: str) -> str:
        """Return the WebSocket address of a room for somebody of that name."""
        query = urlencode({"name": name})
        return f"ws://127.0.0.1:{self.port}/ws/rooms/{quote(room, safe='')}/?{query}"

    @property
    def lobby_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/lobby/"

    def api(self, path: str) -> Any:
        """GET /api/<path> and return what the JSON says."""
        request = f"{self.url}/api/{path}"
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:  # It holds a socket, of which Python 3.10 warns.
                body = io.BytesIO(error.read())
            about = error.url, error.code, error.msg, error.headers
            raise urllib.error.HTTPError(*about, body) from None

    def room(self, name: str) -> Any:
        """Return what this process says of a room: name, count, users, members."""
        return self.api(f"rooms/{quote(name, safe='')}/")

    def events(self) -> list[dict[str, Any]]:
        """Return the signals it received, in the order of its log."""
        if not self._event_log.exists():
            return []
        # A last line without its end is still being written.
        lines = self._event_log.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def log(self) -> str:
        """What it wrote to stdout and stderr, over all its lives."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def complaints(self) -> list[str]:
        """Return the lines of its log that speak of an error or a warning."""
        return [line for line in self.log.splitlines() if COMPLAINT.search(line)]

    @property
    def _event_log(self) -> Path:
        return self._directory / "events.jsonl"

    @property
    def _log_path(self) -> Path:
        return self._directory / "server.log"

    def _running_process(self) -> ChildProcess:
        if self.process is None:
            raise RuntimeError(f"{self!r} was never started")
        return self.process

    def _listening_port(self) -> int | None:
        """Read the port from this life's log: nobody else writes there."""
        if not self.running:
            raise AssertionError(f"{self!r} ended while starting:\n{self.log}")
        found = LISTENING.search(self.log[self._log_start :])
        return int(found[1]) if found else None


class Cluster:
    """
    Any number of nodes of the demo on one Redis.

        with Cluster(server.url, tmp_path) as cluster:
            one, two = cluster.start("daphne", "uvicorn")
            one.kill()

    All processes are killed by their id at the end.
    """

    def __init__(
        self,
        redis_url: str,
        directory: Path,
        *,
        layer: str = "core",
        env: Mapping[str, str] | None = None,
        application: str = APPLICATION,
    ) -> None:
        self.redis_url = redis_url
        self.layer = layer
        self.env = dict(env or {})
        self.application = application
        self.nodes: list[Node] = []
        self._directory = directory

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self, *servers: str, **options: Any) -> list[Node]:
        """Start a node for each of `servers` together; return them when all serve."""
        nodes = [self.add(server, **options) for server in servers]
        for node in nodes:
            node.wait_ready()
        return nodes

    def add(
        self,
        server: str,
        *,
        redis_url: str | None = None,
        layer: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Node:
        """
        Start one more node without waiting for it.

        `redis_url` may lead it through a proxy; `env` adds to the cluster's own.
        """
        node = Node(
            server,
            self._directory / f"node-{len(self.nodes)}",
            layer=layer or self.layer,
            redis_url=redis_url or self.redis_url,
            env={**self.env, **(env or {})},
            application=self.application,
        )
        self.nodes.append(node)
        node.start()
        return node

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.running]

    def events(self) -> list[dict[str, Any]]:
        """Return the signals that all nodes received, node by node."""
        return list(_flatten(node.events() for node in self.nodes))

    def complaints(self) -> list[str]:
        """Return what all logs say of errors and warnings, node by node."""
        return [
            f"{node.name}: {line}" for node in self.nodes for line in node.complaints()
        ]

    def close(self) -> None:
        """Kill what still runs."""
        for node in self.running:
            node.kill()


def _flatten(lists: Iterable[list[dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    for items in lists:
        yield from items

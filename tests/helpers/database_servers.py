"""Real PostgreSQL and MariaDB servers of the tests, and what may happen to them."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from .eventually import eventually
from .processes import ChildProcess

START_ATTEMPTS = 5
NAME = USER = "groups"

# Django looks for mysqlclient, which has no wheels for Linux, and for its version.
pymysql.version_info = (2, 2, 8, "final", 0)
pymysql.install_as_MySQLdb()


class DatabaseServerMissing(Exception):
    """A database server is not installed."""


class DatabaseServer(ABC):
    """A server on a port that the kernel chose, with an empty database.

    It keeps its port and its data over `restart()`.
    """

    engine = ""
    #: What the server says if somebody else took the port meanwhile.
    in_use = ""

    def __init__(self) -> None:
        self.port = 0
        self._scratch = tempfile.TemporaryDirectory(prefix=f"{self.engine}-")
        self.directory = Path(self._scratch.name)
        self._log_path = self.directory / "server.log"
        self._process: ChildProcess | None = None

    def __enter__(self) -> "DatabaseServer":
        try:
            self._install()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def entry(self) -> dict[str, Any]:
        """The server as DATABASES has it."""
        return {
            "ENGINE": f"django.db.backends.{self.engine}",
            "NAME": NAME,
            "USER": USER,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
        }

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start it and wait until it answers, on its former port if it had one."""
        for port in (
            [self.port] if self.port else map(_free_port, range(START_ATTEMPTS))
        ):
            begin = self._log_path.stat().st_size if self._log_path.exists() else 0
            self._process = ChildProcess(
                self._command(port), self._log_path, cwd=self.directory, user=_user()
            )
            if eventually(lambda: self._state(port), timeout=60) == "ready":
                self.port = port
                return
            if self.in_use not in self._log_path.read_text(errors="replace")[begin:]:
                break
        raise AssertionError(f"{self!r} does not start:\n{self._log_path.read_text()}")

    def restart(self) -> None:
        """End it and start it again."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it and all connections to it."""
        if self._process is not None and self.running:
            self._end(self._process)

    @abstractmethod
    def kill_clients(self) -> int:
        """Close every connection but our own, and return how many there were."""

    def close(self) -> None:
        """End it and delete what it wrote, whatever its state."""
        self.stop()
        self._scratch.cleanup()

    @abstractmethod
    def _install(self) -> None:
        """Make the directory of its data."""

    @abstractmethod
    def _command(self, port: int) -> list[str | Path]: ...

    @abstractmethod
    def _is_ready(self, port: int) -> bool:
        """Return whether it answers; it is ours if it has our directory."""

    @abstractmethod
    def _end(self, process: ChildProcess) -> None: ...

    def _state(self, port: int) -> str | None:
        """Tell whether our process is "ready" at `port` or "ended"; None: not yet."""
        if not self.running:
            return "ended"
        return "ready" if self._is_ready(port) else None

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            command, cwd=self.directory, user=_user(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


class PostgreSQLServer(DatabaseServer):
    """PostgreSQL from Debian's packages, or any other on PATH."""

    engine = "postgresql"
    in_use = "Address already in use"

    def __init__(self) -> None:
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        found = max(debian, key=lambda path: int(path.parent.name), default=None)
        on_path = shutil.which("postgres")
        if found is None and on_path is None:
            raise DatabaseServerMissing("PostgreSQL is not installed.")
        self._bin = found or Path(str(on_path)).resolve().parent
        super().__init__()

    def client(self, **options: Any) -> "psycopg.Connection[Any]":
        """Return a connection to it, to be used with `with`."""
        return self._connect(self.port, autocommit=True, **options)

    def kill_clients(self) -> int:
        with self.client() as client:
            found = client.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            return len(found.fetchall())

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _install(self) -> None:
        if _user() is not None:
            shutil.chown(self.directory, _user())
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        initdb = self._bin / "initdb"
        self._run(initdb, f"--pgdata={self._data}", f"--username={USER}", *options)

    def _command(self, port: int) -> list[str | Path]:
        # No data is to survive the machine.
        command: list[str | Path] = [self._bin / "postgres", "-D", self._data]
        command += ["-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", "fsync=off"]
        return command

    def _is_ready(self, port: int) -> bool:
        try:
            with self._connect(port, dbname="postgres", autocommit=True) as client:
                (directory,) = client.execute("SHOW data_directory").fetchone() or [""]
                if Path(directory) != self._data:
                    return False
                query = "SELECT 1 FROM pg_database WHERE datname = %s"
                if not client.execute(query, [NAME]).fetchone():
                    client.execute(f"CREATE DATABASE {NAME}")
                return True
        except psycopg.Error:
            return False

    def _connect(
        self, port: int, dbname: str = NAME, **options: Any
    ) -> "psycopg.Connection[Any]":
        return psycopg.connect(
            host="127.0.0.1", port=port, user=USER, dbname=dbname, **options
        )

    def _end(self, process: ChildProcess) -> None:
        process.interrupt()  # Its fast shutdown; SIGTERM would wait for the clients.


class MariaDBServer(DatabaseServer):
    """MariaDB from Debian's packages, or any other on PATH."""

    engine = "mysql"
    in_use = "Address already in use"

    def __init__(self) -> None:
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        self._server = shutil.which("mariadbd", path=path)
        self._installer = shutil.which("mariadb-install-db", path=path)
        if not self._server or not self._installer:
            raise DatabaseServerMissing("MariaDB is not installed.")
        super().__init__()

    def kill_clients(self) -> int:
        with self._connect(self.port) as client, client.cursor() as cursor:
            query = "SELECT id FROM information_schema.processlist WHERE user = %s"
            cursor.execute(f"{query} AND id <> CONNECTION_ID()", [USER])
            ids = [id for (id,) in cursor.fetchall()]
            for id in ids:
                cursor.execute(f"KILL {id}")
            return len(ids)

    def _install(self) -> None:
        if _user() is not None:
            shutil.chown(self.directory, _user())
        options = ["--no-defaults", "--auth-root-authentication-method=normal"]
        options += ["--skip-test-db", f"--datadir={self._data}"]
        # In /tmp another server that starts would delete its temporary tables.
        options += [f"--tmpdir={self.directory}"]
        self._run(str(self._installer), *options)
        (self.directory / "init.sql").write_text(
            f"CREATE DATABASE IF NOT EXISTS {NAME};\n"
            f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1';\n"
            f"GRANT ALL ON *.* TO {USER}@'127.0.0.1';\n"
        )

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _command(self, port: int) -> list[str | Path]:
        return [
            str(self._server),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self.directory}",
            f"--init-file={self.directory / 'init.sql'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            "--skip-name-resolve",
            # No data is to survive the machine.
            "--innodb-flush-log-at-trx-commit=0",
        ]

    def _is_ready(self, port: int) -> bool:
        try:
            with self._connect(port) as client, client.cursor() as cursor:
                cursor.execute("SELECT @@datadir")
                (directory,) = cursor.fetchone() or ("",)
                return Path(directory) == self._data
        except pymysql.Error:
            return False

    def _connect(self, port: int) -> "pymysql.Connection[Any]":
        return pymysql.connect(host="127.0.0.1", port=port, user=USER)

    def _end(self, process: ChildProcess) -> None:
        process.terminate()


def _user() -> str | None:
    """Return who runs the server in the place of root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _free_port(_: int) -> int:
    """Return a port that was free a moment ago; who uses it must check."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

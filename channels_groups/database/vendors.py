"""What differs between PostgreSQL, MySQL (or MariaDB) and SQLite."""

from __future__ import annotations

import hashlib
from typing import Any, Iterable

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds to connect in, and to wait for a lock: a call takes less than two.
CONNECT_TIMEOUT = 2
LOCK_TIMEOUT = 1
#: Seconds after which the server ends a transaction that its process, frozen perhaps,
#: does not go on with: all others wait for it.
IDLE_TIMEOUT = 2

Options = dict[str, Any]


class Clock(models.Func):
    """The database's clock, at this moment, in microseconds since the epoch."""

    output_field = models.BigIntegerField()
    arity = 0

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        return "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint", []

    def as_mysql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        start = "'1970-01-01 00:00:00'"
        return f"TIMESTAMPDIFF(MICROSECOND, {start}, UTC_TIMESTAMP(6))", []

    def as_sqlite(  # type: ignore[override]
        self, compiler: Any, connection: Any, **context: Any
    ) -> tuple[str, list[Any]]:
        days = "(julianday('now') - 2440587.5)"
        return f"(CAST({days} * 86400000 AS INTEGER) * 1000)", []


class Vendor:
    """How the store uses one kind of database.

    Where it can, each node holds a lock on its name, which ends with its connection:
    who holds none and misses a renewal was killed.
    """

    def options(self, options: Options) -> Options:
        """Return the OPTIONS of the store's own connections."""
        return options

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        """Set up a connection that was just opened."""

    def begin(self, connection: BaseDatabaseWrapper) -> None:
        """Bound how long a transaction that was just begun may take."""

    def hold(self, connection: BaseDatabaseWrapper, layer: str, node: str) -> None:
        """Lock a node's name as long as the connection lasts."""

    def let_go(self, connection: BaseDatabaseWrapper, layer: str, node: str) -> None:
        """Undo hold()."""

    def held(
        self, connection: BaseDatabaseWrapper, layer: str, nodes: Iterable[str]
    ) -> set[str]:
        """Return those of the nodes whose connections live, or are not known to."""
        return set(nodes)

    def is_any_held(self, connection: BaseDatabaseWrapper, layer: str) -> bool:
        """Return whether any node is known to live, whatever the tables say."""
        return False


class SQLite(Vendor):
    """One writer at a time; others wait for it, and a process has only its lease."""

    def options(self, options: Options) -> Options:
        return {**options, "timeout": LOCK_TIMEOUT, "transaction_mode": "IMMEDIATE"}


class PostgreSQL(Vendor):
    """Names are locked with advisory locks."""

    def options(self, options: Options) -> Options:
        options = {"connect_timeout": CONNECT_TIMEOUT, **options}
        options.pop("pool", None)
        options.pop("isolation_level", None)  # Read committed is the default.
        return options

    def begin(self, connection: BaseDatabaseWrapper) -> None:
        """Set it for this transaction only: PgBouncer may give it to another one."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, true),"
                " set_config('idle_in_transaction_session_timeout', %s, true)",
                [f"{LOCK_TIMEOUT}s", f"{IDLE_TIMEOUT}s"],
            )

    def hold(self, connection: BaseDatabaseWrapper, layer: str, node: str) -> None:
        self._run(connection, "SELECT pg_try_advisory_lock_shared(%s, %s)", layer, node)

    def let_go(self, connection: BaseDatabaseWrapper, layer: str, node: str) -> None:
        self._run(connection, "SELECT pg_advisory_unlock_shared(%s, %s)", layer, node)

    def held(
        self, connection: BaseDatabaseWrapper, layer: str, nodes: Iterable[str]
    ) -> set[str]:
        locked = self._locked(connection, layer)
        return {node for node in nodes if _number(node) in locked}

    def is_any_held(self, connection: BaseDatabaseWrapper, layer: str) -> bool:
        return bool(self._locked(connection, layer))

    def _locked(self, connection: BaseDatabaseWrapper, layer: str) -> set[int]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory'"
                " AND classid::bigint = %s AND objsubid = 2 AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())",
                [_number(f"channels_groups:{layer}")],
            )
            return {number for (number,) in cursor.fetchall()}

    def _run(
        self, connection: BaseDatabaseWrapper, sql: str, layer: str, node: str
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, [_number(f"channels_groups:{layer}"), _number(node)])


class MySQL(Vendor):
    """Names are locked with GET_LOCK(), which Galera's servers do not share."""

    def options(self, options: Options) -> Options:
        timeouts = ("connect_timeout", "read_timeout", "write_timeout")
        mine = dict.fromkeys(timeouts, CONNECT_TIMEOUT)
        return {**mine, **options, "isolation_level": "read committed"}

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT}")
            if connection.mysql_is_mariadb:  # type: ignore[attr-defined]
                # MySQL has nothing like it.
                cursor.execute(f"SET SESSION idle_transaction_timeout = {IDLE_TIMEOUT}")

    def hold(self, connection: BaseDatabaseWrapper, layer: str, node: str) -> None:
        self._ask(connection, "GET_LOCK(%s, 0)", [node])

    def let_go(self, connection: BaseDatabaseWrapper, layer: str, node: str) -> None:
        self._ask(connection, "RELEASE_LOCK(%s)", [node])

    def held(
        self, connection: BaseDatabaseWrapper, layer: str, nodes: Iterable[str]
    ) -> set[str]:
        nodes = list(nodes)
        if not nodes:
            return set()
        holders = self._ask(connection, "IS_USED_LOCK(%s)", nodes)
        return {node for node, holder in zip(nodes, holders) if holder is not None}

    def _ask(
        self, connection: BaseDatabaseWrapper, call: str, nodes: list[str]
    ) -> tuple[Any, ...]:
        with connection.cursor() as cursor:
            names = [f"channels_groups:{node}" for node in nodes]
            cursor.execute("SELECT " + ", ".join([call] * len(names)), names)
            answers: tuple[Any, ...] = cursor.fetchone()
            return answers


def get_vendor(using: str) -> Vendor:
    """Return how to use a database; raise ImproperlyConfigured if the store cannot."""
    connection = connections[using]
    vendor = VENDORS.get(connection.vendor)
    if vendor is None:
        raise ImproperlyConfigured(
            f"The database store works on PostgreSQL, MySQL, MariaDB and SQLite; "
            f"DATABASES[{using!r}] is none of them."
        )
    if connection.vendor == "sqlite" and connection.is_in_memory_db():  # type: ignore
        raise ImproperlyConfigured(
            f"DATABASES[{using!r}] is in memory, where the threads of the database "
            "store cannot write: give it a file (in tests DATABASES[...]['TEST']"
            "['NAME'])."
        )
    return vendor()


def _number(name: str) -> int:
    """Return an int4 that is most likely no other name's."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


VENDORS: dict[str, type[Vendor]] = {
    "sqlite": SQLite,
    "postgresql": PostgreSQL,
    "mysql": MySQL,
}

"""Real databases of the tests' own, for the database store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connections

APP = "channels_groups_database"


class Router:
    """Let the database store use one database, and that one nothing else."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model._meta.app_label == APP else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return app_label == APP if db == self.alias else None


class Database:
    """An entry of DATABASES that is there as long as it is open, with the tables.

    ``run()`` does something with it in a thread, since tests have an event loop.
    """

    def __init__(self, alias: str, entry: dict[str, Any], server: Any = None) -> None:
        self.alias = alias
        self.server = server
        self.router = Router(alias)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=alias)
        configured = connections.configure_settings({"default": {}, alias: entry})
        connections.settings[alias] = configured[alias]

    def __enter__(self) -> "Database":
        self.run(call_command, "migrate", APP, database=self.alias, verbosity=0)
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(lambda: connections[self.alias].close())
        self._thread.shutdown()
        del connections.settings[self.alias]

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something that uses the database."""
        return self._thread.submit(call, *args, **kwargs).result()


def sqlite(directory: Path) -> dict[str, Any]:
    """Return an entry of DATABASES for a file, as Django's documentation advises."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": directory / "groups.sqlite3",
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
        },
    }

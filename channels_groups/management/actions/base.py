"""What the actions of ``manage.py groups`` have in common."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime
from typing import Any, Awaitable, Callable, TypeVar

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from ...groups import ConnectionGroup
from ...manager import GroupManager
from ...stores.base import StoreRebuilding
from ..console import Console

#: Rows of a table, unless told otherwise.
LIMIT = 20
#: Seconds between two attempts to ask a store that is being written back.
RETRY = 0.5

Options = dict[str, Any]
T = TypeVar("T")


class Action:
    """One action. Its errors are those of the package, or CommandError."""

    help = ""

    def __init__(self, manager: GroupManager, console: Console) -> None:
        self.manager = manager
        self.store = manager.store
        self.console = console

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        """Add what stands behind the action's name."""

    def act(self, options: Options) -> None:
        raise NotImplementedError

    def run(self, call: Awaitable[T]) -> T:
        """Await a call that may ask the store often."""

        async def run() -> T:
            self.store.attach()
            try:
                return await call
            finally:
                await self.store.detach()

        return async_to_sync(run)()

    async def retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the store until it is whole again."""
        while True:
            try:
                return await call()
            except StoreRebuilding:
                self.console.progress("The processes are writing back; waiting …")
                await asyncio.sleep(RETRY)


async def count(group: ConnectionGroup) -> dict[str, int]:
    """Return members and users, or raise CommandError if there is no such group."""
    members = await group.acount()
    if not members:
        raise CommandError(f"There is no group {group.name!r}.")
    return {"members": members, "users": await group.auser_count()}


def to_datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.get_current_timezone())


def add_limit(parser: CommandParser) -> None:
    parser.add_argument(
        "--limit",
        type=_positive,
        help=f"How many to list; {LIMIT}, or all of them as JSON.",
    )


def add_json(parser: CommandParser, help: str = "Print JSON.") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def add_no_input(parser: CommandParser) -> None:
    parser.add_argument(
        *("--no-input", "--noinput"),
        action="store_false",
        dest="interactive",
        help="Do not ask.",
    )


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number that is at least 1.")
    return number

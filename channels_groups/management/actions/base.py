"""What the actions of ``manage.py groups`` have in common."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any, Awaitable, TypeVar

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from ...groups import ConnectionGroup
from ...manager import GroupManager
from ..console import Console

#: Rows of a table, unless told otherwise.
LIMIT = 20

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


async def count(group: ConnectionGroup) -> dict[str, int]:
    """Return members and users, or raise CommandError if there is no such group."""
    members = await group.acount()
    if not members:
        raise CommandError(f"There is no group {group.name!r}.")
    return {"members": members, "users": await group.auser_count()}


def run(call: Awaitable[T]) -> T:
    async def run() -> T:
        return await call

    return async_to_sync(run)()


def isoformat(seconds: float) -> str:
    now = datetime.fromtimestamp(seconds, timezone.get_current_timezone())
    return now.isoformat()


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
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("It must be at least 1.")
    return number

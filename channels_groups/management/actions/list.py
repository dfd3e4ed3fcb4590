"""``manage.py groups list``"""

from __future__ import annotations

from typing import AsyncIterator

from django.core.management.base import CommandParser

from ... import listing
from ..console import number
from ..table import Column
from .base import LIMIT, Action, Options, add_json, add_limit, run

COLUMNS = [
    Column("Group", least=10),
    Column("Members", right=True),
    Column("Users", right=True, optional=True),
]


class List(Action):
    help = "List the groups, those with most members first."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument(
            "--prefix", default="", help="Only groups whose names begin so."
        )
        add_limit(parser)
        add_json(parser)

    def act(self, options: Options) -> None:
        prefix, limit = options["prefix"], options["limit"]
        if options["json"]:
            run(self.console.write_json_list(self._read(prefix, limit)))
        else:
            run(self._write_table(prefix, LIMIT if limit is None else limit))

    async def _write_table(self, prefix: str, limit: int) -> None:
        rows = [list(row.values()) async for row in self._read(prefix, limit)]
        if not rows:
            what = f" whose name begins with {prefix!r}" if prefix else ""
            self.console.write(f"There is no group{what}.")
            return
        self.console.write_table(
            COLUMNS,
            ((name, f"{members:,}", f"{users:,}") for name, members, users in rows),
        )
        groups = await self.manager.agroup_count()
        members = await self.manager.amembership_count()
        shown = f"{len(rows):,} of " if len(rows) < groups else ""
        self.console.write(
            f"\n{shown}{number(groups, 'group')}; {number(members, 'membership')}."
        )

    async def _read(self, prefix: str, limit: int | None) -> AsyncIterator[Options]:
        for name, members in await listing.largest_groups(self.store, prefix, limit):
            users = await self.store.user_count(name)
            yield {"name": name, "members": members, "users": users}

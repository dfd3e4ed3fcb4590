"""``manage.py groups list``"""

from __future__ import annotations

from functools import partial
from typing import AsyncIterator

from django.core.management.base import CommandParser

from ... import listing
from ...stores.base import Summary
from ..console import number
from ..table import Column
from .base import LIMIT, Action, Options, add_json, add_limit

COLUMNS = [
    Column("Group", least=10),
    Column("Members", right=True),
    Column("Users", right=True, optional=True),
]


class List(Action):
    help = "List the groups, those with most members first."
    #: So many groups have been read.
    _matched = 0

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
            self.run(self.console.write_json_list(self._read(prefix, limit)))
        else:
            self.run(self._write_table(prefix, LIMIT if limit is None else limit))

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
        if prefix:
            # Those that changed meanwhile may have been read twice.
            groups = self._matched if self._matched > limit else len(rows)
            rest = f" with the prefix {prefix!r}."
        else:
            groups = await self.manager.agroup_count()
            members = await self.manager.amembership_count()
            rest = f"; {number(members, 'membership')}."
        is_cut = len(rows) < groups
        self.console.write(
            f"\n{f'{len(rows):,} of ' if is_cut else ''}{number(groups, 'group')}{rest}"
            f"{' --limit shows more of them.' if is_cut else ''}"
        )

    async def _read(self, prefix: str, limit: int | None) -> AsyncIterator[Options]:
        groups = await listing.largest_groups(self.store, prefix, limit, self._progress)
        names = [name for name, _ in groups]
        for first in range(0, len(names), listing.SIZE):
            page = names[first : first + listing.SIZE]
            look = partial(listing.summarize, self.store, page)
            for name, one in (await self.retry(look)).items():
                if one.count:
                    yield _about(name, one)
            done = first + len(page)
            self.console.progress(f"{done:,} of {number(len(names), 'group')} …")

    def _progress(self, read: int) -> None:
        self._matched = read
        self.console.progress(f"{number(read, 'group')} read …")


def _about(name: str, summary: Summary) -> Options:
    return {"name": name, "members": summary.count, "users": summary.user_count}

"""``manage.py groups show``"""

from __future__ import annotations

import json
from typing import AsyncIterator

from django.core.management.base import CommandParser

from ... import listing
from ...groups import ConnectionGroup
from ...stores.base import PAGE, Member
from ..console import number
from ..table import Column, printable
from .base import LIMIT, Action, Options, add_json, add_limit, count, to_datetime

COLUMNS = [
    Column("User", least=12),
    Column("Connection", optional=True),
    Column("Since", optional=True),
    Column("Process", least=8, optional=True),
    Column("Info", least=8, optional=True),
]


class Show(Action):
    help = "Show who is in a group."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="The group's name.")
        add_limit(parser)
        add_json(parser)

    def act(self, options: Options) -> None:
        group = self.manager.group(options["name"])
        self.run(self._show(group, options["limit"], options["json"]))

    async def _show(
        self, group: ConnectionGroup, limit: int | None, as_json: bool
    ) -> None:
        about: Options = {"name": group.name, **await count(group)}
        if as_json:
            found = self._read(group, limit, about["members"])
            rows = (_about(*one) async for one in found)
            await self.console.write_json_object(about, "connections", rows)
            return
        found = self._read(group, limit or LIMIT, about["members"])
        shown = [_row(*one) async for one in found]
        self.console.write(
            f"{printable(group.name)}: {number(about['members'], 'member')}, "
            f"{number(about['users'], 'user')}.\n\n"
        )
        self.console.write_table(COLUMNS, shown)
        if len(shown) < about["members"]:
            rest = about["members"] - len(shown)
            self.console.write(f"\n{rest:,} more; --limit shows more of them.")

    async def _read(
        self, group: ConnectionGroup, limit: int | None, members: int
    ) -> AsyncIterator[tuple[Member, listing.Process | None]]:
        read = 0
        async for one in listing.iterate_members(self.store, group.name, limit):
            yield one
            read += 1
            if read % PAGE == 0:
                self.console.progress(f"{read:,} of {number(members, 'member')} …")


def _about(member: Member, process: listing.Process | None) -> Options:
    return {
        "id": member.id,
        "user_id": member.user_id,
        "info": member.info,
        "joined_at": to_datetime(member.joined_at).isoformat(),
        "process": process.name if process else "",
        "channel_name": member.channel_name,
    }


def _row(member: Member, process: listing.Process | None) -> list[str]:
    since = to_datetime(member.joined_at).strftime("%Y-%m-%d %H:%M")
    info = json.dumps(member.info, ensure_ascii=False) if member.info else ""
    user = "-" if member.user_id is None else member.user_id
    return [user, member.id, since, process.name if process else "", info]

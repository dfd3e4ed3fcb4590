"""``manage.py groups show``"""

from __future__ import annotations

import json
from datetime import datetime

from django.core.management.base import CommandParser

from ... import listing
from ...groups import ConnectionGroup
from ...stores.base import PAGE, Member
from ..console import number
from ..table import Column, printable
from .base import LIMIT, Action, Options, add_json, add_limit, count, isoformat

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
        if limit is None and not as_json:
            limit = LIMIT
        connections = []
        async for one in listing.iterate_members(self.store, group.name, limit):
            connections.append(_about(*one))
            if len(connections) % PAGE == 0:
                self.console.progress(
                    f"{len(connections):,} of {number(about['members'], 'member')} …"
                )
        if as_json:
            self.console.write_json({**about, "connections": connections})
            return
        self.console.write(
            f"{printable(group.name)}: {number(about['members'], 'member')}, "
            f"{number(about['users'], 'user')}.\n\n"
        )
        self.console.write_table(COLUMNS, (_row(one) for one in connections))
        if len(connections) < about["members"]:
            rest = about["members"] - len(connections)
            self.console.write(f"\n{rest:,} more; --limit shows more of them.")


def _about(member: Member, process: listing.Process | None) -> Options:
    return {
        "id": member.id,
        "user_id": member.user_id,
        "info": member.info,
        "joined_at": isoformat(member.joined_at),
        "process": process.name if process else "",
        "channel_name": member.channel_name,
    }


def _row(about: Options) -> list[str]:
    since = datetime.fromisoformat(about["joined_at"])
    info = json.dumps(about["info"], ensure_ascii=False) if about["info"] else ""
    user = "-" if about["user_id"] is None else about["user_id"]
    return [user, about["id"], since.strftime("%Y-%m-%d %H:%M"), about["process"], info]

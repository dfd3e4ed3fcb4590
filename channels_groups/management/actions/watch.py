"""``manage.py groups watch``"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime

from django.core.management.base import CommandParser

from ...watch import Event, Gap, Watcher
from ..table import Column
from .base import Action, Options, add_json, to_datetime

#: Time, event and count; group, user, connection and reason.
COLUMNS = [
    *(Column(""), Column(""), Column("")),
    *(Column("", least=6), Column("", least=4)),
    *(Column("", optional=True), Column("", optional=True)),
]
STYLES = {
    "created": "SUCCESS",
    "join": "SUCCESS",
    "leave": "WARNING",
    "destroyed": "WARNING",
}


class Watch(Action):
    help = "Print each event as it happens, until Ctrl-C."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument(
            "name", metavar="NAME", nargs="?", help="Of this group only."
        )
        add_json(parser, "Print each event as a line of JSON.")

    def act(self, options: Options) -> None:
        name = options["name"]
        group = None if name is None else self.manager.group(name).name
        try:
            # Not async_to_sync(), which would leave Ctrl-C to another thread's loop.
            asyncio.run(self._watch(group, options["json"]))
        except KeyboardInterrupt:
            pass  # As the note has said.

    async def _watch(self, group: str | None, as_json: bool) -> None:
        async with Watcher(self.manager, group) as watcher:
            self.console.note("Watching; Ctrl-C ends it.")
            async for event in watcher:
                if isinstance(event, Gap):
                    self.console.note(event.why)
                elif as_json:
                    when = to_datetime(event.time).isoformat()
                    about = {**asdict(event), "time": when}
                    self.console.write_json(about, indent=None)
                else:
                    style = STYLES.get(event.name)
                    self.console.write_event(COLUMNS, _cells(event), style)


def _cells(event: Event) -> list[str]:
    when = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
    count = "" if event.count is None else f"{event.count:,}"
    cells = [when, f"{event.name:<9}", f"{count:>5}", event.group]
    if event.id is not None:
        cells += [event.user_id or "-", event.id]
    if event.reason is not None:
        cells.append(event.reason)
    return cells

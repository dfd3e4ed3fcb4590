"""``manage.py groups watch``"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime

from django.core.management.base import CommandParser

from ...watch import Event, Gap, Watcher
from ..table import printable
from .base import Action, Options, add_json, isoformat

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
                    about = {**asdict(event), "time": isoformat(event.time)}
                    self.console.write_json(about, indent=None)
                else:
                    self.console.write_event(_line(event), STYLES.get(event.name))


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
    count = "" if event.count is None else f"{event.count:,}"
    line = f"{when}  {event.name:<9}  {count:>5}  {printable(event.group)}"
    if event.id is not None:
        line += f"  {printable(event.user_id or '-')}  {event.id}"
    if event.reason is not None:
        line += f"  {event.reason}"
    return line

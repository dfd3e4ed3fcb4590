"""``manage.py groups close``"""

from __future__ import annotations

from django.core.management.base import CommandError, CommandParser

from ... import listing
from ..console import number
from ..table import printable
from .base import Action, Options, add_no_input, count


class Close(Action):
    help = "Close every connection of a group, or all there are."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", nargs="?", help="The group's name.")
        parser.add_argument(
            "--all", action="store_true", help="Every connection, in a group or not."
        )
        parser.add_argument("--code", type=int, help="1000, or from 3000 to 4999.")
        parser.add_argument("--reason", help="Up to 123 bytes; daphne drops it.")
        add_no_input(parser)

    def act(self, options: Options) -> None:
        name = options["name"]
        if options["all"] == (name is not None):
            raise CommandError("Give either the name of a group or --all.")
        target = self.manager if name is None else self.manager.group(name)
        what = self._everything() if name is None else self._group(name)
        self.console.confirm(f"Close {what}?", options["interactive"])
        target.close_all(options["code"], options["reason"])
        self.console.write(f"Asked {what} to close.")

    def _everything(self) -> str:
        processes = self.run(listing.list_processes(self.store))
        if not processes:
            raise CommandError("No process has a connection.")
        connections = sum(one.connections for one in processes)
        return (
            f"all {number(connections, 'connection')} of "
            f"{number(len(processes), 'process')}"
        )

    def _group(self, name: str) -> str:
        members = self.run(count(self.manager.group(name)))["members"]
        return f"{number(members, 'connection')} of {printable(name)}"

"""``manage.py groups send``"""

from __future__ import annotations

from django.core.management.base import CommandParser

from ..console import number
from .base import Action, Options, count


class Send(Action):
    help = "Send a text to every member of a group."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="The group's name.")
        parser.add_argument("text", metavar="TEXT", help="What its members get.")

    def act(self, options: Options) -> None:
        group = self.manager.group(options["name"])
        members = self.run(count(group))["members"]
        group.send(options["text"])
        self.console.write(f"Sent to {number(members, 'connection')}.")

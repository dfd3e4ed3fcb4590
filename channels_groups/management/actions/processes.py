"""``manage.py groups processes``"""

from __future__ import annotations

from django.core.management.base import CommandParser

from ... import listing
from ..table import Column
from .base import Action, Options, add_json

COLUMNS = [
    Column("Process", least=12),
    Column("Connections", right=True),
    Column("Memberships", right=True),
    Column("Lease", right=True, optional=True),
]


class Processes(Action):
    help = "List the processes that have connections."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        add_json(parser)

    def act(self, options: Options) -> None:
        processes = self.run(listing.list_processes(self.store))
        if options["json"]:
            self.console.write_json([_about(one) for one in processes])
        elif not processes:
            self.console.write("No process has a connection.")
        else:
            self.console.write_table(COLUMNS, (_row(one) for one in processes))


def _about(process: listing.Process) -> Options:
    return {
        "process": process.name,
        "connections": process.connections,
        "memberships": process.memberships,
        "lease": round(process.remaining, 3),
    }


def _row(process: listing.Process) -> list[str]:
    remaining = process.remaining
    return [
        process.name,
        f"{process.connections:,}",
        f"{process.memberships:,}",
        f"{remaining:.1f} s" if remaining > 0 else "run out",
    ]

"""``manage.py groups verify``"""

from __future__ import annotations

from functools import partial

from django.core.management.base import CommandError, CommandParser

from ...stores.base import Disagreement
from ..console import number
from .base import Action, Options, add_json, add_no_input


class Verify(Action):
    help = "Compare what the store says in several places."

    @staticmethod
    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument(
            "--repair", action="store_true", help="Mend what disagrees."
        )
        add_no_input(parser)
        add_json(parser)

    def act(self, options: Options) -> None:
        repair, as_json = options["repair"], options["json"]
        if repair:
            question = "Change what the store says where it disagrees?"
            self.console.confirm(question, options["interactive"])
        checked, found = self.run(self._verify(repair))
        left = self.run(self._verify(False))[1] if repair and found else found
        if as_json:
            self.console.write_json(
                {
                    "checked": checked,
                    "disagreements": [one._asdict() for one in found],
                    "remaining": len(left),
                }
            )
        else:
            self._write(checked, found)
        if left:
            hint = "" if repair else " --repair mends what it can."
            raise CommandError(f"{number(len(left), 'disagreement')} left.{hint}")
        if found and not as_json:
            self.console.success("All of it is mended.")

    async def _verify(self, repair: bool) -> tuple[int, list[Disagreement]]:
        checked, found, cursor = 0, [], None
        while True:
            verify = partial(self.store.verify, cursor, repair)
            findings, cursor = await self.retry(verify)
            checked += findings.checked
            found += findings.disagreements
            self.console.progress(f"{checked:,} entries compared …")
            if cursor is None:
                return checked, found

    def _write(self, checked: int, found: list[Disagreement]) -> None:
        for one in found:
            about = [
                *([f"group {one.group!r}"] if one.group else []),
                *([f"process {one.node}"] if one.node else []),
                *([f"host {one.shard}"] if self.store.shards > 1 else []),
            ]
            self.console.warn(f"{', '.join(about)}: {one.what}" if about else one.what)
        entries = f"{checked:,} entr{'y' if checked == 1 else 'ies'} compared"
        agree = "" if found else ", all agree"
        self.console.write(f"{entries}{agree}.")

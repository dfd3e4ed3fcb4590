"""What a command writes: tables and progress for a person, JSON for a script."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any, AsyncIterator, Iterable, Sequence

from django.core.management.base import BaseCommand, CommandError

from .table import Column, fit, render


class Console:
    """A command's output, and the person at its terminal, if there is one."""

    def __init__(self, command: BaseCommand) -> None:
        self._out = command.stdout
        self._err = command.stderr
        self._style = command.style
        self._in_progress = False
        #: On the terminal, where progress would be written over it.
        self._written = False

    def write(self, text: str, ending: str = "\n") -> None:
        if self._out.isatty():
            self.end_progress()
            self._written = True
        self._out.write(text, ending=ending)

    def write_event(
        self, columns: Sequence[Column], cells: Sequence[object], style: str | None
    ) -> None:
        """Write a row at once, as wide as the terminal; it may lack the last cells."""
        _, line = render(columns[: len(cells)], [cells], self._width())
        self.write(getattr(self._style, style)(line) if style else line)
        self._out.flush()

    def write_table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[object]]
    ) -> None:
        titles, *lines = render(columns, rows, self._width())
        self.write(self._style.MIGRATE_HEADING(titles))
        for line in lines:
            self.write(line)

    def write_json(self, content: Any, indent: int | None = 2) -> None:
        self.write(json.dumps(content, indent=indent, ensure_ascii=False))
        self._out.flush()

    async def write_json_list(
        self, rows: AsyncIterator[dict[str, Any]], indent: str = "", ending: str = "\n"
    ) -> None:
        """Write a list row by row: it may be long."""
        mark = "["
        async for row in rows:
            line = json.dumps(row, ensure_ascii=False)
            self.write(f"{mark}\n{indent}  {line}", ending="")
            mark = ","
        self.write("[]" if mark == "[" else f"\n{indent}]", ending=ending)

    async def write_json_object(
        self, content: dict[str, Any], key: str, rows: AsyncIterator[dict[str, Any]]
    ) -> None:
        """Write an object that ends with such a list, under ``key``."""
        begun = json.dumps(content, indent=2, ensure_ascii=False).removesuffix("\n}")
        self.write(f'{begun},\n  "{key}": ', ending="")
        await self.write_json_list(rows, indent="  ", ending="")
        self.write("\n}")

    def success(self, text: str) -> None:
        self.write(self._style.SUCCESS(text))

    def warn(self, text: str) -> None:
        self.write(self._style.WARNING(text))

    def note(self, text: str) -> None:
        """Say something beside the output, which a script may read."""
        self.end_progress()
        self._err.write(self._style.NOTICE(text))
        self._err.flush()

    def progress(self, text: str) -> None:
        """Show on a terminal how far it is, on a line that the next one replaces.

        Once there is output on the terminal, that is what shows it.
        """
        if self._err.isatty() and not self._written:
            text = fit(text, shutil.get_terminal_size().columns - 1)
            self._err.write(f"\r\033[K{self._style.NOTICE(text)}", ending="")
            self._err.flush()
            self._in_progress = True

    def end_progress(self) -> None:
        """Leave nothing of it on the terminal."""
        if self._in_progress:
            self._err.write("\r\033[K", ending="")
            self._err.flush()
            self._in_progress = False

    def confirm(self, question: str, interactive: bool) -> None:
        """Ask before anything is closed or changed, but only a person at a terminal.

        CommandError unless the answer is yes.
        """
        if not interactive:
            return
        if not (sys.stdin.isatty() and self._err.isatty()):
            raise CommandError(
                "There is no terminal to ask at; with --no-input nothing is asked."
            )
        # Not by input(), which would write it to what may be a file.
        self._err.write(f"{question} [y/N] ", ending="")
        self._err.flush()
        try:
            answer = input()
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done.")

    def _width(self) -> int | None:
        """Return the terminal's width; None where a script reads."""
        return shutil.get_terminal_size().columns if self._out.isatty() else None


def number(number: int, noun: str) -> str:
    """Return "1 process" or "2 processes"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"

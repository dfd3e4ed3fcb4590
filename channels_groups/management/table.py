"""Tables that fit the terminal, whatever stands in them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Iterable, Iterator, Sequence

GAP = "  "


@dataclass(frozen=True)
class Column:
    """title; least: what it may be narrowed to, None: never; right: for numbers;
    optional: it is left out where there is no room, the last one first.
    """

    title: str
    least: int | None = None
    right: bool = False
    optional: bool = False


def render(
    columns: Sequence[Column], rows: Iterable[Sequence[object]], width: int | None
) -> Iterator[str]:
    """Return the lines of a table, its titles first; ``width`` None: as wide as it is.

    What would not be printed as it is, such as a line's end or a terminal's control
    codes, is shown as an escape.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    lines = [[column.title for column in columns], *cells]
    widths = [max(map(width_of, column)) for column in zip(*lines)]
    if width is not None:
        _narrow(columns, widths, width)
    for line in lines:
        shown = [
            _pad(fit(cell, room), room, column.right)
            for column, cell, room in zip(columns, line, widths)
            if room
        ]
        yield GAP.join(shown).rstrip()


def printable(text: str) -> str:
    """Return the text with an escape for each character that is not to be printed.

    Names come from users: they must not move the cursor or turn the line around.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def fit(text: str, room: int) -> str:
    """Cut the text to so many columns of the terminal, with an ellipsis."""
    if width_of(text) <= room:
        return text
    cut, used = "", 1
    for char in text:
        used += _width(char)
        if used > room:
            break
        cut += char
    return cut + "…"


def width_of(text: str) -> int:
    """Return how many columns of the terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0  # It is written over the one before.
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _pad(text: str, room: int, right: bool) -> str:
    space = " " * (room - width_of(text))
    return space + text if right else text + space


def _narrow(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Leave out what has no room even at its least; then narrow the widest columns."""
    least = [
        room if column.least is None else min(room, column.least)
        for column, room in zip(columns, widths)
    ]
    for i in reversed(range(len(columns))):
        if columns[i].optional and _total(least) > width:
            least[i] = widths[i] = 0
    while _total(widths) > width:
        narrow = [(room, i) for i, room in enumerate(widths) if room > least[i]]
        if not narrow:
            return
        widths[max(narrow)[1]] -= 1


def _total(widths: list[int]) -> int:
    return sum(widths) + len(GAP) * (sum(map(bool, widths)) - 1)

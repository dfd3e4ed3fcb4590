"""Rounds, medians, ratios and tables."""

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from channels_groups.exceptions import StoreUnavailable

#: Of a sample.
REPEATS = 5

Sample = Callable[[], Awaitable[float]]
#: Who the others are compared with, and what the target for their ratio is.
Against = Mapping[str, str]


class Report:
    """What one part of the benchmarks measures: tables, printed as they come."""

    def __init__(self, part: str, rounds: int, quick: bool) -> None:
        self.part = part
        self.rounds = rounds
        self.quick = quick
        #: Samples that had to be taken again.
        self.repeated = 0
        self.tables: list[dict[str, Any]] = []

    async def compare(
        self,
        title: str,
        unit: str,
        contenders: Mapping[str, Sample],
        *,
        against: str | Against,
        targets: Mapping[str, str] | None = None,
        rounds: int | None = None,
    ) -> None:
        """
        Let the contenders take turns, and print each one's ratio to those `against`.

        Each round measures everyone once, so that what disturbs the machine
        disturbs all of them; the ratio is the median of the rounds' ratios. Nobody
        pays for the garbage that another one has left.
        """
        measured: dict[str, list[float]] = {name: [] for name in contenders}
        repeated = self.repeated
        for _ in range(rounds or self.rounds):
            for name, sample in contenders.items():
                gc.collect()
                measured[name].append(await self._measure(sample))
        if self.repeated > repeated:
            title += f", {self.repeated - repeated} samples repeated"
        self.add_ratios(title, unit, measured, against=against, targets=targets)

    async def _measure(self, sample: Sample) -> float:
        """Take it again if the store did not answer in time: the machine was busy."""
        for _ in range(REPEATS):
            try:
                return await sample()
            except StoreUnavailable as error:
                print(f"once more: {error}", flush=True)
                self.repeated += 1
                await asyncio.sleep(1)
        return await sample()

    def add_ratios(
        self,
        title: str,
        unit: str,
        measured: Mapping[str, list[float]],
        *,
        against: str | Against,
        targets: Mapping[str, str] | None = None,
    ) -> None:
        """Print what the rounds measured; `targets` has one for each contender."""
        against = {against: ""} if isinstance(against, str) else against
        rows = []
        for name, values in measured.items():
            row = {"": name, unit: spread(values)}
            for other, target in against.items():
                ratios = [one / by for one, by in zip(values, measured[other])]
                head = f"x {other}" + (f" ({target})" if target else "")
                row[head] = "1" if name == other else spread(ratios)
            if targets:
                row["target"] = targets.get(name, "")
            rows.append(row)
        rounds = len(next(iter(measured.values())))
        self.add(title, rows, measured, rounds)

    def add(
        self, title: str, rows: list[dict[str, Any]], measured: Any, rounds: int = 1
    ) -> None:
        """Print a table and keep it."""
        title = f"{title} ({rounds} round{'s' if rounds != 1 else ''})"
        self.tables.append({"title": title, "rows": rows, "measured": measured})
        print(f"\n{self.part}: {title}\n")
        print(_table(rows), flush=True)


def spread(values: list[float]) -> str:
    """Write the median, and the range of several."""
    median = statistics.median(values)
    if len(values) == 1:
        return number(median)
    return f"{number(median)} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Write a number with three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(v) for v in r.values()] for r in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in lines
    )

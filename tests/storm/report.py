"""What a storm found, as a table for docs/guarantees.md."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from .rounds import Result

HEAD = ["| fault | times | median | p90 | worst |", "| --- | --- | --- | --- | --- |"]


def table(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines, as docs/guarantees.md has them: each kind of fault, then all."""
    kinds: dict[str, list[Result]] = defaultdict(list)
    violations: Counter[str] = Counter()
    excused: Counter[str] = Counter()
    for result in results:
        kinds[result.kind].append(result)
        violations[result.kind] += len(result.violations)
        excused.update(result.excused)
    yield from HEAD
    for kind in sorted(kinds):
        yield line(kind, kinds[kind])
    yield line("all", [one for kind in kinds.values() for one in kind])
    if violations.total():
        yield f"violations: {listed(+violations)}"
    if excused:
        what = "signals that died with a process that was killed amid traffic"
        yield f"excused: {what}: {listed(excused)}"


def line(kind: str, results: list[Result]) -> str:
    """Return the line of one kind; the times are seconds after the fault's end."""
    times = sorted(one.settled for one in results if one.settled is not None)
    columns = [kind, str(len(results))]
    columns += [f"{quantile(times, share):.1f}" for share in (0.5, 0.9, 1.0)]
    return f"| {' | '.join(columns)} |"


def listed(numbers: Counter[str]) -> str:
    return ", ".join(f"{what} {number}" for what, number in numbers.items())


def quantile(times: list[float], share: float) -> float:
    """Return the time that so great a share of them does not exceed."""
    if not times:
        return float("nan")
    return times[max(0, -int(-share * len(times) // 1) - 1)]


def save(path: Path, seed: int, layer: str, results: Iterable[Result]) -> None:
    """Add the results to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        for result in results:
            about = {"seed": seed, "layer": layer, **asdict(result)}
            file.write(json.dumps(about) + "\n")


def load(paths: Iterable[str]) -> Iterator[Result]:
    """Yield all results that were saved."""
    for path in paths:
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            fields = json.loads(text)
            del fields["seed"], fields["layer"]
            yield Result(**fields)

"""What a storm found, as a table."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from .rounds import Result

HEAD = f"{'fault':<26}{'times':>6}{'violations':>12}{'settled: median':>17}"
HEAD += f"{'p90':>7}{'p99':>7}{'max':>7}{'excused':>9}"


def table(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines: each kind of fault, then all together."""
    kinds: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        kinds[result.kind].append(result)
    yield HEAD
    for kind in sorted(kinds):
        yield line(kind, kinds[kind])
    yield line("all", [one for kind in kinds.values() for one in kind])
    excused: Counter[str] = Counter()
    for result in (one for kind in kinds.values() for one in kind):
        excused.update(result.excused)
    if excused:
        yield "excused: signals that died with a process that was killed amid traffic: "
        yield ", ".join(f"{what} {number}" for what, number in excused.items())


def line(kind: str, results: list[Result]) -> str:
    """Return the line of one kind; the times are seconds after the fault's end."""
    times = sorted(one.settled for one in results if one.settled is not None)
    violations = sum(len(one.violations) for one in results)
    excused = sum(sum(one.excused.values()) for one in results)
    columns = [f"{kind:<26}{len(results):>6}{violations:>12}"]
    for share, width in ((0.5, 17), (0.9, 7), (0.99, 7), (1.0, 7)):
        columns.append(f"{quantile(times, share):>{width}.2f}")
    return "".join(columns) + f"{excused:>9}"


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

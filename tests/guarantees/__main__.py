"""python -m tests.guarantees killed frozen --rounds 5

Measures what docs/guarantees.md promises, on three processes with a thousand
connections each. It needs the extra `benchmarks`, for the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import hostile  # noqa: F401, its scenarios are among all
from .scenarios import SCENARIOS, Results
from .world import World


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.guarantees")
    parser.add_argument("scenarios", nargs="*", metavar="|".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=1000, help="of each process")
    parser.add_argument("--layer", choices=("core", "pubsub"), default="core")
    parser.add_argument("--minutes", type=float, default=20, help="of `healthy`")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> Results:
    results: Results = {}
    wanted = options.scenarios or SCENARIOS
    with tempfile.TemporaryDirectory(prefix="guarantees-") as directory:
        world = World(
            Path(directory),
            layer=options.layer,
            connections=options.connections,
            minutes=options.minutes,
        )
        async with world:
            for name in wanted:
                await SCENARIOS[name](world, options.rounds, results)
                print(f"{name}: done", flush=True)
    return results


def row(name: str, target: float, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99))
    numbers = (f"{number:.2f}" for number in (p50, p99, ordered[-1]))
    missed = "" if p99 <= target else " (missed)"
    return f"| {name} | {target:g}{missed} | {len(ordered):,} | {' | '.join(numbers)} |"


def main() -> None:
    options = parse()
    results = asyncio.run(measure(options))
    print(f"{options.layer}, 3 x {options.connections:,} connections, seconds")
    print("| what | target | n | median | p99 | worst |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (target, seconds) in results.items():
        print(row(name, target, seconds))


if __name__ == "__main__":
    main()

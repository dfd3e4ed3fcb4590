"""python -m tests.storm --minutes 5 --seed 1 --layer pubsub

Three processes, hundreds of clients and one fault after the other. The seed decides
what happens; it is printed, and the same seed does the same again. The exit code is
1 if anything was wrong at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import secrets
import tempfile
import time
from pathlib import Path

from .plan import KINDS, make_rounds
from .report import load, save, table
from .rounds import Result, play
from .world import World

#: Violations of one round that are printed; one fault may bring hundreds.
SHOWN = 15


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--faults", type=int, help="end after so many")
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument("--layer", choices=("core", "pubsub"), default="core")
    parser.add_argument("--clients", type=int, default=240)
    parser.add_argument("--first", type=int, default=0, help="the first round's number")
    parser.add_argument("--only", action="append", choices=KINDS, metavar="FAULT")
    parser.add_argument("--patience", type=float, default=20.0, help="to settle")
    parser.add_argument("--broken", default="", help="see tests/helpers/broken.py")
    parser.add_argument("--save", type=Path, help="add the results to this file")
    parser.add_argument("--table", nargs="+", help="print that of such files, together")
    return parser.parse_args()


async def storm(options: argparse.Namespace, seed: int) -> list[Result]:
    """Play rounds until the time is over; begin anew after a violation."""
    results: list[Result] = []
    end = time.monotonic() + 60 * options.minutes
    world = None
    rounds = make_rounds(seed, options.clients, 3, options.only or ())
    for round in itertools.islice(rounds, options.first, None):
        if time.monotonic() > end or len(results) == options.faults:
            break
        if world is None:
            world = await begin(options, seed)
        result = await play(world, round, options.patience)
        results.append(result)
        print(f"{time.strftime('%H:%M:%S')} {result}", flush=True)
        if result.violations:
            tell(result, world.directory)
            await world.close()
            world = None
    if world is not None:
        await world.close()
    return results


async def begin(options: argparse.Namespace, seed: int) -> World:
    directory = Path(tempfile.mkdtemp(prefix="storm-"))
    world = World(
        directory,
        seed=seed,
        layer=options.layer,
        clients=options.clients,
        broken=options.broken,
    )
    await world.start()
    return world


def tell(result: Result, directory: Path) -> None:
    """Print what was wrong, and where to look."""
    for violation in result.violations[:SHOWN]:
        print(f"  VIOLATION {violation[:2000]}", flush=True)
    if len(result.violations) > SHOWN:
        print(f"  and {len(result.violations) - SHOWN} more")
    print(f"  logs in {directory}; the storm begins anew", flush=True)


def main() -> int:
    """Run a storm; return the exit code."""
    options = parse()
    if options.table:
        results = list(load(options.table))
    else:
        # Handshakes that faults cut short are no news.
        logging.getLogger("websockets").setLevel(logging.CRITICAL)
        seed = secrets.randbelow(10**6) if options.seed is None else options.seed
        print(f"storm: --seed {seed} --layer {options.layer}", flush=True)
        results = asyncio.run(storm(options, seed))
        if options.save:
            save(options.save, seed, options.layer, results)
    print("\n".join(table(results)), flush=True)
    wrong = sum(len(result.violations) for result in results)
    print(f"{len(results)} faults, {wrong} violations", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

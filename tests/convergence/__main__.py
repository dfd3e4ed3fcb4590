"""python -m tests.convergence --seeds 100

Two hundred clients over three processes join, leave and update at random, while the
messages that tell of changes are lost, late and doubled, and processes are killed. In
every third seed one is frozen until it has lost its lease, and goes on. In every other
seed they also reload: a new connection comes after the end of the old one, or before.
Then it is quiet, and within two seconds each client has to believe what is true. Where
no process was killed or frozen, a reload must have been told of as no leave and no
join. The exit code is 1 if one did not.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from ..helpers import layers
from ..helpers.server import RedisServer
from .world import World


def parse():
    parser = argparse.ArgumentParser(prog="python -m tests.convergence")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--orders", type=int, default=300, help="of each seed")
    parser.add_argument("--layer", choices=("core", "pubsub"), default="core")
    parser.add_argument("--within", type=float, default=2.0, help="seconds of quiet")
    return parser.parse_args()


async def play(options, redis_url):
    """Play all seeds; return what was wrong."""
    wrong = []
    directory = Path(tempfile.mkdtemp(prefix="convergence-"))
    async with World(redis_url, directory, options.layer, options.clients) as world:
        for seed in range(options.first, options.first + options.seeds):
            result = await world.play(seed, options.orders, options.within)
            print(result, flush=True)
            wrong += result.wrong
        complaints = world.cluster.complaints()
    for one in complaints:
        print(f"  COMPLAINT {one[:500]}", flush=True)
    print(f"{options.seeds} seeds, {len(wrong)} wrong views; logs in {directory}")
    print(f"Of {world.certain} users each signal was counted.")
    return wrong


def main():
    options = parse()
    with RedisServer() as server:
        layers.wait_until_seasoned(server)
        wrong = asyncio.run(play(options, server.url))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

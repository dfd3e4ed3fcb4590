"""Run the parts that are named, or all."""

import argparse
import asyncio
import importlib
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.helpers.server import RedisServer

from . import machine
from .report import Report

PARTS = (
    *("join", "broadcast", "storm", "scale", "shards"),
    *("connection", "detect", "wire"),
)
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    arguments = parse_arguments()
    results: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "rounds": arguments.rounds,
        "quick": arguments.quick,
        "machine": machine.describe(),
        "parts": {},
    }
    failed: list[str] = []
    with RedisServer() as redis, tempfile.TemporaryDirectory() as scratch:
        prepare_django(redis.url)
        for name in arguments.parts or PARTS:
            redis.flush()
            report = Report(name, arguments.rounds, arguments.quick)
            part = importlib.import_module(f"benchmarks.{name}")
            start = time.monotonic()
            try:
                asyncio.run(part.run(report, redis, Path(scratch)))
            except Exception:
                traceback.print_exc()  # The other parts may have taken long, or will.
                failed.append(name)
            seconds = round(time.monotonic() - start)
            print(f"\n{name} took {seconds} s.", flush=True)
            results["parts"][name] = {"seconds": seconds, "tables": report.tables}
            results["versions"] = machine.find_all_versions(redis)
            write(results, arguments.json)
    print()
    for what in ("machine", "versions"):
        print(f"{what}: {json.dumps(results[what])}")
    print(f"all of it: {arguments.json}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def write(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="small, for its errors")
    parser.add_argument("--rounds", type=int, default=None, help="at least 5")
    default = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    parser.add_argument(
        "--json",
        type=Path,
        default=default,
        help="where to write what was measured; default: a new file in "
        "benchmarks/results",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.parts).difference(PARTS)
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    if arguments.rounds is None:
        arguments.rounds = 1 if arguments.quick else 5
    elif arguments.rounds < 5 and not arguments.quick:
        parser.error("a range needs at least 5 rounds, except with --quick")
    return arguments


def prepare_django(redis_url: str) -> None:
    os.environ["BENCHMARK_REDIS_URL"] = redis_url
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django

    django.setup()


if __name__ == "__main__":
    main()

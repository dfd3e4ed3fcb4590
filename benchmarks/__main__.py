"""Run the parts that are named, or all."""

import argparse
import asyncio
import importlib
import json
import os
import tempfile
import time
from pathlib import Path

from tests.helpers.server import RedisServer

from .report import Report, describe_machine

PARTS = ("join", "broadcast", "storm", "scale", "connection", "detect", "wire")


def main() -> None:
    arguments = parse_arguments()
    with RedisServer() as redis, tempfile.TemporaryDirectory() as scratch:
        prepare_django(redis.url)
        results = {"machine": describe_machine(redis), "parts": {}}
        for name in arguments.parts or PARTS:
            redis.flush()
            report = Report(name, arguments.rounds, arguments.quick)
            part = importlib.import_module(f"benchmarks.{name}")
            start = time.monotonic()
            asyncio.run(part.run(report, redis, Path(scratch)))
            print(f"\n{name} took {time.monotonic() - start:.0f} s.")
            results["parts"][name] = report.tables
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="small, for its errors")
    parser.add_argument("--rounds", type=int, default=None, help="at least 5")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    arguments = parser.parse_args()
    unknown = set(arguments.parts).difference(PARTS)
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    return arguments


def prepare_django(redis_url: str) -> None:
    os.environ["BENCHMARK_REDIS_URL"] = redis_url
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django

    django.setup()


if __name__ == "__main__":
    main()

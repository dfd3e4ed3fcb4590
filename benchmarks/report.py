"""Rounds, medians, ratios and tables."""

import gc
import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.helpers.server import RedisServer

PACKAGES = ("Django", "channels", "channels_redis", "redis", "uvicorn", "daphne")
PEERS = ("hiredis", "uvloop", "websockets", "python-socketio", "picows")

Sample = Callable[[], Awaitable[float]]


class Report:
    """What one part of the benchmarks measures: tables, printed as they come."""

    def __init__(self, part: str, rounds: int, quick: bool) -> None:
        self.part = part
        self.rounds = rounds
        self.quick = quick
        self.tables: list[dict[str, Any]] = []

    async def compare(
        self,
        title: str,
        unit: str,
        contenders: Mapping[str, Sample],
        *,
        against: str,
        targets: Mapping[str, str] | None = None,
        rounds: int | None = None,
    ) -> dict[str, list[float]]:
        """
        Let the contenders take turns, and print each one's ratio to `against`.

        Each round measures everyone once, so that what disturbs the machine
        disturbs all of them; the ratio is the median of the rounds' ratios. Nobody
        pays for the garbage that another one has left.
        """
        measured: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds or self.rounds):
            for name, sample in contenders.items():
                gc.collect()
                measured[name].append(await sample())
        rows = []
        for name, values in measured.items():
            ratios = [one / by for one, by in zip(values, measured[against])]
            rows.append(
                {
                    "": name,
                    unit: _spread(values),
                    f"x {against}": "1" if name == against else _spread(ratios),
                    "target": (targets or {}).get(name, ""),
                }
            )
        self.add(title, rows, {name: values for name, values in measured.items()})
        return measured

    def add(self, title: str, rows: list[dict[str, Any]], data: Any = None) -> None:
        """Print a table and keep it."""
        self.tables.append({"title": title, "rows": rows, "measured": data})
        print(f"\n{self.part}: {title}\n")
        print(_table(rows), flush=True)


def describe_machine(redis: RedisServer) -> dict[str, Any]:
    with redis.client() as client:
        server = client.info("server")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "server": server.get("valkey_version") or server["redis_version"],
        "packages": {name: _version(name) for name in (*PACKAGES, *PEERS)},
        "node": _node_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = info.exists() and re.search(r"model name\s*: (.*)", info.read_text())
    return found[1] if found else platform.processor()


def _node_version() -> str | None:
    node = shutil.which("node")
    if node is None:
        return None
    return subprocess.check_output([node, "--version"], text=True).strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _spread(values: list[float]) -> str:
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

"""python -m tests.guarantees.crowd: a process of clients that come all the time.

    python -m tests.guarantees.crowd --rate 300 --seconds 20 ws://...{} ws://...{}

Each asks one of the addresses for a WebSocket, with its own number in the place of
{}, and goes when it is told "unavailable". It prints the seconds that each waited for
that, how many were told nothing, and the seconds in which they came, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..helpers.cluster import PROJECT
from ..storm.visitors import ask_for_websocket

#: Seconds after which a client goes if it was told nothing.
PATIENCE = 8


async def crowd(urls: Sequence[str], rate: float, seconds: float) -> dict[str, Any]:
    """Send clients at this rate, if the machine can; return what became of them."""
    began = time.monotonic()
    visits: list[asyncio.Task[float | None]] = []
    while (passed := time.monotonic() - began) < seconds:
        while len(visits) < rate * passed:
            number = len(visits)
            url = urls[number % len(urls)].format(number)
            visits.append(asyncio.create_task(visit(url)))
        await asyncio.sleep(0.01)
    came = time.monotonic() - began
    answers = await asyncio.gather(*visits)
    waited = [round(one, 3) for one in answers if one is not None]
    untold = len(answers) - len(waited)
    return {"waited": waited, "untold": untold, "seconds": came}


async def visit(url: str) -> float | None:
    """Return the seconds until a client was turned away; None if it was not told."""
    began = time.monotonic()
    try:
        await asyncio.wait_for(be_turned_away(url), PATIENCE)
    except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
        return None
    return time.monotonic() - began


async def be_turned_away(url: str) -> None:
    reader, writer = await ask_for_websocket(url)
    try:
        await reader.readuntil(b"unavailable")
    finally:
        writer.transport.abort()


async def send_crowd(urls: Sequence[str], rate: float, seconds: float) -> Any:
    """Run this module in a process of its own; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.guarantees.crowd", *urls),
        *("--rate", str(rate), "--seconds", str(seconds)),
        stdout=asyncio.subprocess.PIPE,
        cwd=PROJECT,
    )
    output, _ = await process.communicate()
    return json.loads(output)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.guarantees.crowd")
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(crowd(**vars(options)))))


if __name__ == "__main__":
    main()

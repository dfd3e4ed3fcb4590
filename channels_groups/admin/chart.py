"""A chart of the members over the last minutes.

Its samples are taken while somebody looks at the admin, and kept in Django's cache:
where nobody looked there is a gap.
"""

from __future__ import annotations

import time
from typing import NamedTuple
from urllib.parse import quote

from django.core.cache import cache

#: Seconds that the chart shows.
SPAN = 600
#: Seconds between samples, at least; after so many without one there is a gap.
EVERY, GAP = 1.5, 15
WIDTH, HEIGHT = 600, 150

Sample = tuple[float, int]


class Chart(NamedTuple):
    """lines: points for SVG; top: what the upper edge stands for, the lower for 0."""

    lines: list[str]
    top: int
    now: int
    most: int
    fewest: int
    minutes: int = SPAN // 60
    width: int = WIDTH
    height: int = HEIGHT


def add_sample(alias: str, members: int) -> list[Sample]:
    """Keep a sample, unless there is one of just now, and return all that are kept.

    Of two that come at once one may be lost.
    """
    key, now = f"channels_groups:members:{quote(alias, safe='')}", time.time()
    try:
        kept: list[Sample] = cache.get(key, [])
        kept = [sample for sample in kept if now - SPAN <= sample[0] <= now]
        if not kept or now - kept[-1][0] >= EVERY:
            kept.append((now, members))
            cache.set(key, kept, SPAN)
    except Exception:  # A cache that is away raises anything, and takes the chart only.
        return [(now, members)]
    return kept


def draw(samples: list[Sample]) -> Chart:
    """Return the chart of samples, the last of which is from now."""
    counts = [count for _, count in samples]
    end, top = samples[-1][0], _round_up(max(counts))
    lines: list[list[str]] = []
    for number, (moment, count) in enumerate(samples):
        if not number or moment - samples[number - 1][0] > GAP:
            lines.append([])
        x = WIDTH * (1 - (end - moment) / SPAN)
        y = HEIGHT * (1 - count / top)
        lines[-1].append(f"{x:.1f},{y:.1f}")
    points = [" ".join(line if len(line) > 1 else line * 2) for line in lines]
    return Chart(points, top, counts[-1], max(counts), min(counts))


def _round_up(count: int) -> int:
    """Return the next even number with one significant digit, 10 at least."""
    unit: int = 10 ** (len(str(max(count, 1))) - 1)
    top: int = -(-count // (2 * unit)) * 2 * unit
    return max(10, top)

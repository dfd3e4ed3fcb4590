"""Joining and leaving: a tracked pair beside an untracked one.

A pair is set_group(name) and set_group(None), or group_add() and group_discard().
A crowd makes its pairs at the same time. Shared rooms are held open by others; a
room of its own comes into being and vanishes with each pair.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from channels.layers import get_channel_layer
from prometheus_client import CollectorRegistry

from channels_groups import metrics, signals
from channels_groups.meters import METERS
from tests.helpers.server import RedisServer

from .local import Connections, Told, Untold
from .report import Report

ROOMS = 10
#: Connections at a time -> pairs of each in one sample.
CROWDS = {1: 100, 64: 4, 1000: 1}
QUICK = {1: 5, 20: 1}
#: Calls of a peer under way at once: more would not be faster, only open more
#: connections to Redis.
BOUND = 50

LAYERS = ("core", "pubsub")
SIGNALS = [
    signals.group_created,
    signals.group_join,
    signals.group_leave,
    signals.group_destroyed,
]
TARGETS = {
    "core": {1: "<= 1.0", 64: "<= 0.5", 1000: "<= 0.4"},
    "pubsub": {1: "<= 3", 64: "<= 1.5", 1000: "<= 1.5"},
}

Pair = Callable[[Any, str], Awaitable[None]]


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    for layer in LAYERS:
        await compare_pairs(report, layer)
    for layer in LAYERS:
        await compare_rooms_of_their_own(report, layer)
    for layer in LAYERS:
        await compare_receivers(report, layer)
    for layer in LAYERS:
        await compare_told(report, layer)


async def compare_pairs(report: Report, layer: str) -> None:
    """Shared rooms, nobody listening."""
    async with Lab(report, layer) as lab:
        for crowd in lab.crowds:
            contenders = {
                "PING": lab.sample(lab.ping, 1),
                "group_add + group_discard": lab.sample(lab.untracked, crowd),
                "set_group pair": lab.sample(tracked, crowd),
            }
            against = "PING" if layer == "pubsub" else "group_add + group_discard"
            await report.compare(
                f"{layer}, shared rooms, {crowd:,} at a time",
                "us a pair",
                contenders,
                against=against,
                targets={"set_group pair": TARGETS[layer].get(crowd, "")},
            )


async def compare_rooms_of_their_own(report: Report, layer: str) -> None:
    async with Lab(report, layer) as lab, Lab(report, f"{layer}-bare") as bare:
        for crowd in lab.crowds:
            contenders = {
                "PING": lab.sample(lab.ping, 1),
                "group_add + group_discard": lab.sample(lab.untracked, crowd, own=True),
                "set_group pair": lab.sample(tracked, crowd, own=True),
                "PLAIN_GROUP_SEND off": bare.sample(tracked, crowd, own=True),
            }
            targets = {"set_group pair": "<= 1.25", "PLAIN_GROUP_SEND off": "<= 1.0"}
            await report.compare(
                f"{layer}, a room for each, {crowd:,} at a time",
                "us a pair",
                contenders,
                against="group_add + group_discard",
                targets=targets if (layer, crowd) == ("core", 64) else {},
            )


async def compare_receivers(report: Report, layer: str) -> None:
    """What signal receivers cost: none, async ones, sync ones; and metrics."""
    async with Lab(report, layer) as lab:
        cases = [(crowd, False) for crowd in lab.crowds] + [(lab.crowds[-1], True)]
        for crowd, own in cases:
            plain = lab.sample(tracked, crowd, own=own)
            contenders = {
                "no receivers": plain,
                "async receivers": listening(areceive, plain),
                "sync receivers": listening(receive, plain),
                "metrics": counting(lab.store, plain),
            }
            rooms = "a room for each" if own else "shared rooms"
            await report.compare(
                f"{layer}, {rooms}, all four signals, {crowd:,} at a time",
                "us a pair",
                contenders,
                against="no receivers",
            )


async def compare_told(report: Report, layer: str) -> None:
    """The pairs of several crowds in a row, so that telling falls into the time."""
    async with Lab(report, layer) as untold, Lab(report, layer, Told) as told:
        crowd = untold.crowds[-1]
        for own in (False, True):
            rooms = "a room for each" if own else "shared rooms"
            options = {"own": own, "times": 3, "pause": 0.3}
            is_target = layer == "core" and not own
            await report.compare(
                f"{layer}, {rooms}, everybody told, {crowd:,} at a time, thrice",
                "us a pair",
                {
                    "untold": untold.sample(tracked, crowd, **options),
                    "told": told.sample(tracked, crowd, **options),
                },
                against="untold",
                targets={"told": "<= 1.5"} if is_target else {},
            )


class Lab:
    """A crowd of connections on one layer, and rooms that others hold open."""

    def __init__(
        self,
        report: Report,
        layer: str,
        consumer: type = Untold,
        rooms: int = ROOMS,
    ) -> None:
        self._times = QUICK if report.quick else CROWDS
        self.crowds = list(self._times)
        self.layer = get_channel_layer(layer)
        self._alias = layer
        self._consumer = consumer
        self._rooms = [f"{consumer.__name__}-{index}" for index in range(rooms)]
        self._bound = asyncio.Semaphore(BOUND)
        self._stack = AsyncExitStack()
        self._crowd: Any = []

    async def __aenter__(self) -> "Lab":
        from channels_groups.manager import get_group_manager

        count, rooms = self.crowds[-1], len(self._rooms)
        everybody = Connections(self._consumer, self._alias, count + rooms)
        consumers = await self._stack.enter_async_context(everybody)
        self._crowd, holders = consumers[:count], consumers[count:]
        holding = zip(holders, self._rooms)
        await asyncio.gather(*(holder.join_group(room) for holder, room in holding))
        self.store = get_group_manager(self._alias).store
        self._redis = self.store.client(0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def sample(
        self,
        pair: Pair,
        crowd: int,
        *,
        own: bool = False,
        times: int = 0,
        pause: float = 0,
    ) -> Callable[[], Awaitable[float]]:
        """Return a function that measures microseconds for each pair of a crowd."""
        times = times or self._times[crowd]

        async def measure() -> float:
            rooms = [f"own-{index}" for index in range(crowd)] if own else self._rooms
            start = time.perf_counter()
            for _ in range(times):
                await self._act(pair, crowd, rooms)
            taken = time.perf_counter() - start
            await asyncio.sleep(pause)
            return taken / times / crowd * 1e6

        return measure

    async def ping(self, consumer: Any, room: str) -> None:
        await self._redis.ping()

    async def untracked(self, consumer: Any, room: str) -> None:
        async with self._bound:
            await self.layer.group_add(room, consumer.channel_name)
        async with self._bound:
            await self.layer.group_discard(room, consumer.channel_name)

    async def _act(self, pair: Pair, crowd: int, rooms: list[str]) -> None:
        if crowd == 1:
            await pair(self._crowd[0], rooms[0])
            return
        members = enumerate(self._crowd[:crowd])
        pairs = [pair(member, rooms[index % len(rooms)]) for index, member in members]
        for result in await asyncio.gather(*pairs, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


async def tracked(consumer: Any, room: str) -> None:
    await consumer.set_group(room)
    await consumer.set_group(None)


async def areceive(**kwargs: Any) -> None:
    pass


def receive(**kwargs: Any) -> None:
    pass


def listening(
    receiver: Callable[..., Any], sample: Callable[[], Awaitable[float]]
) -> Callable[[], Awaitable[float]]:
    """Return the sample with a receiver connected to all signals."""

    async def measure() -> float:
        with _connected(receiver):
            return await sample()

    return measure


@contextmanager
def _connected(receiver: Callable[..., Any]) -> Any:
    for signal in SIGNALS:
        signal.connect(receiver)
    try:
        yield
    finally:
        for signal in SIGNALS:
            signal.disconnect(receiver)


def counting(
    store: Any, sample: Callable[[], Awaitable[float]]
) -> Callable[[], Awaitable[float]]:
    """Return the sample with metrics that count it."""

    async def measure() -> float:
        before = dict(vars(store))
        metrics.register(CollectorRegistry())
        try:
            return await sample()
        finally:
            METERS.pop()
            for name in vars(store).keys() - before:
                delattr(store, name)

    return measure

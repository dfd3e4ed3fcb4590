"""The faults that are measured, each for some rounds in the same world."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from .world import Event, World

#: By the name of a number: its target, and all that was measured, in seconds.
Results = dict[str, tuple[float, list[float]]]
Scenario = Callable[[World, int, Results], Awaitable[None]]

LEASE = 10
#: Seconds that the store is away: longer than LEASE.
OUTAGE = 15

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def note(results: Results, name: str, target: float, seconds: list[float]) -> None:
    results.setdefault(name, (target, []))[1].extend(seconds)
    print(f"  {name}: {max(seconds):.2f}", flush=True)


def is_leave(reason: str) -> Callable[[Event], bool]:
    return lambda event: event.get("reason") == reason


def is_join(event: Event) -> bool:
    return bool(event["event"] == "join")


@scenario
async def killed(world: World, rounds: int, results: Results) -> None:
    for number in range(rounds):
        node = world.cluster.nodes[number % 3]
        name = "SIGKILL: all leaves signalled"
        since = time.time()
        node.kill()
        lost = await world.seconds(since, world.members, is_leave("lost"))
        note(results, name, 3, lost)
        await world.replace(node)


@scenario
async def terminated(world: World, rounds: int, results: Results) -> None:
    for _ in range(rounds):
        for server in ("daphne", "uvicorn"):
            node = world.node(server)
            since = time.time()
            ending = asyncio.create_task(asyncio.to_thread(node.terminate))
            left = await world.seconds(since, world.members, is_leave("disconnected"))
            note(results, f"SIGTERM, {server}: all leaves signalled", 1, left)
            await ending
            await world.replace(node)


@scenario
async def frozen(world: World, rounds: int, results: Results) -> None:
    for number in range(rounds):
        node = world.cluster.nodes[number % 3]
        since = time.time()
        node.freeze()
        lost = await world.seconds(since, world.members, is_leave("lost"))
        note(results, "SIGSTOP: all leaves signalled", LEASE + 1, lost)
        await back(world, results, "SIGCONT", node.thaw)


@scenario
async def partitioned(world: World, rounds: int, results: Results) -> None:
    for _ in range(rounds):
        since = time.time()
        world.proxy.drop()
        lost = await world.seconds(since, world.members, is_leave("lost"))
        note(results, "cut off: all leaves signalled", LEASE + 1, lost)
        await back(world, results, "cut off no more", world.proxy.heal)


async def back(world: World, results: Results, what: str, heal: Any) -> None:
    since = time.time()
    heal()
    joined = await world.seconds(since, world.members, is_join)
    note(results, f"{what}: all joined again", 2, joined)
    await world.right()


@scenario
async def store_emptied(world: World, rounds: int, results: Results) -> None:
    for _ in range(rounds):
        world.redis.kill()
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(world.redis.restart, empty=True)
        await all_right(world, results, "Redis back, empty: all right")


@scenario
async def store_restarted(world: World, rounds: int, results: Results) -> None:
    for _ in range(rounds):
        world.redis.save()
        world.redis.kill()
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(world.redis.start)
        await all_right(world, results, "Redis back, with its data: all right")


@scenario
async def store_paused(world: World, rounds: int, results: Results) -> None:
    for _ in range(rounds):
        world.redis.pause()
        await asyncio.sleep(OUTAGE)
        world.redis.resume()
        await all_right(world, results, "Redis goes on: all right")


async def all_right(
    world: World, results: Results, name: str, outage: float = OUTAGE
) -> None:
    """Measure until all is right; nobody may have been told of anything."""
    since = time.time()
    await world.right()
    note(results, name, 3, [time.time() - since])
    world.read()
    told = [one for one in world.events if one["time"] > since - outage]
    strange = [one for one in told if one["group"].startswith("room ")]
    if strange:
        kinds = Counter(
            (round(one["time"] - since, 1), one["event"], one.get("reason"), one["pid"])
            for one in strange
        )
        raise AssertionError(f"signals for what never changed: {kinds}")


@scenario
async def healthy(world: World, rounds: int, results: Results) -> None:
    """Nothing happens but light traffic; nobody may be lost."""
    since = time.time()
    end = since + 60 * world.minutes
    warned = -warnings(world)
    while time.time() < end:
        for mover in world.movers.values():
            await mover.move("here")
            await mover.say("hello")
            await mover.move("there")
        await asyncio.sleep(0.5)
    world.read()
    told = [one for one in world.events if one["time"] > since]
    lost = [one for one in told if one.get("reason") == "lost"]
    warned += warnings(world)
    minutes = (time.time() - since) / 60
    print(f"healthy for {minutes:.1f} minutes: {len(lost)} lost, {warned} warnings")
    await world.right()


def warnings(world: World) -> int:
    return sum(node.log.count("lost its lease") for node in world.cluster.nodes)

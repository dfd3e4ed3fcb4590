"""What slow, restless and too many clients do to the others, as further scenarios."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from benchmarks.servers import Clients

from ..helpers.client import connect
from ..helpers.cluster import Node
from ..helpers.deaf import DeafClient
from ..helpers.flood import Listener, flood, memory, read_again
from .crowd import send_crowd
from .scenarios import Results, all_right, note, scenario
from .world import PATIENCE, ROOMS, World, ask

#: Seconds that the store is away, and how many clients come in each of them.
LONG_OUTAGE, RATE = 30, 300
#: Clients that do not read, what is said meanwhile, and its characters.
DEAF, MESSAGES, SIZE = 100, 10_000, 1000
#: Rooms that a client goes through.
MOVES = 1000


@scenario
async def crowded(world: World, rounds: int, results: Results) -> None:
    """Redis is away for long, and clients come all the time and are turned away.

    Not on pub/sub, where they wait before connect() is called.
    """
    for _ in range(rounds if world.cluster.layer == "core" else 0):
        said = outage_lines(world)
        world.redis.pause()
        growing = asyncio.create_task(watch_memory(world, LONG_OUTAGE))
        urls = [node.ws_url("NUMBER", "visitor") for node in world.cluster.nodes]
        urls = [url.replace("NUMBER", "door-{}") for url in urls]
        sent = await send_crowd(urls, RATE, LONG_OUTAGE - 5)
        await growing
        world.redis.resume()
        what = f"Redis goes on after {LONG_OUTAGE} s, with {RATE} connects/s: all right"
        await all_right(world, results, what, LONG_OUTAGE)
        came = len(sent["waited"]) + sent["untold"]
        rate, untold = came / sent["seconds"], sent["untold"]
        print(f"  {came:,} came, {rate:.0f} a second; {untold} were told nothing")
        note(results, "Redis away: a client is turned away", 2, sent["waited"])
        lines = [now - before for now, before in zip(outage_lines(world), said)]
        if set(lines) != {1}:
            raise AssertionError(f"lines of the beginning and the end: {lines}")


async def watch_memory(world: World, seconds: float) -> None:
    """Print the memory of all processes, and what each has of connections."""
    for passed in range(0, int(seconds), 5):
        sizes = [f"{node.server} {memory(node):.0f}" for node in world.cluster.nodes]
        print(f"  {passed} s: {', '.join(sizes)} MB", flush=True)
        await asyncio.sleep(5)


def outage_lines(world: World) -> list[int]:
    """Return how often each process has said that an outage began, and ended."""
    words = "Group membership is unavailable", "Group membership is back"
    return [node.log.count(one) for node in world.cluster.nodes for one in words]


@scenario
async def slow(world: World, rounds: int, results: Results) -> None:
    """Some do not read while others talk, who miss nothing.

    The times are compared with those without them, and with as many that read.
    """
    for server in ("uvicorn", "daphne"):
        node = world.node(server)
        alone, reading, deaf = [], [], []
        for number in range(rounds):
            room = f"loud {number}"
            async with AsyncExitStack() as stack:
                listeners = [
                    await stack.enter_async_context(Listener(node, room, f"ear-{one}"))
                    for one in range(3)
                ]
                alone.append(await heard(listeners))
                async with readers(node, room):
                    reading.append(await heard(listeners))
                deaf.append(await heard_beside_deaf(node, room, listeners))
        for name, others in (("alone", alone), (f"with {DEAF} that read", reading)):
            ratios = [one / other for one, other in zip(deaf, others)]
            what = f"{server}: with {DEAF} that do not read, over {name}"
            note(results, what, 1.1, ratios)


async def heard(listeners: Sequence[Listener]) -> float:
    """Return the seconds of a flood; raise AssertionError if anybody missed any."""
    seconds = await flood(listeners, MESSAGES, SIZE)
    if any(one.heard != list(range(MESSAGES)) for one in listeners):
        raise AssertionError("Somebody missed a message, or heard it late.")
    return seconds


@asynccontextmanager
async def readers(node: Node, room: str) -> AsyncIterator[None]:
    """Connect as many clients that read, in a process of their own."""
    clients = await Clients.start()
    await clients.do("connect", urls=[node.ws_url(room, "reader")], count=DEAF)
    yield
    await clients.do("close")
    await clients.stop()


async def heard_beside_deaf(
    node: Node, room: str, listeners: Sequence[Listener]
) -> float:
    """Do as heard() beside clients that do not read, and print what becomes of them."""
    deaf = [DeafClient(node.ws_url(room, f"deaf-{one}")) for one in range(DEAF)]
    before = memory(node)
    try:
        for client in deaf:
            await asyncio.to_thread(client.open)
        reading = asyncio.create_task(read_again(node, room, len(listeners), deaf[:5]))
        seconds = await heard(listeners)
        grown, most = memory(node) - before, memory(node, "VmHWM") - before
        members = node.room(room)["count"]
        codes = await reading if members == len(listeners) else "nothing"
        reading.cancel()
    finally:
        for client in deaf:
            client.close()
    print(f"  {node.server}: {members} members are left, closed with {codes};", end="")
    print(f" {grown:.0f} MB more, at most {most:.0f} MB", flush=True)
    return seconds


@scenario
async def mover(world: World, rounds: int, results: Results) -> None:
    """A client goes through many rooms without waiting; no other count changes."""
    for number in range(rounds):
        node = world.cluster.nodes[number % 3]
        name = f"{node.server}: {MOVES:,} moves of one client"
        async with connect(node, "door 0", "restless") as restless:
            looking = asyncio.create_task(look(world))
            since = time.time()
            for room in range(MOVES):
                await restless.send(type="move", room=f"door {room}")
            last = f"door {MOVES - 1}"
            await restless.receive("welcome", room=last, timeout=PATIENCE)
            note(results, name, PATIENCE, [time.time() - since])
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        await world.right()


async def look(world: World) -> None:
    """Ask every process again and again whether the counts of the rooms are right."""
    size = len(world.cluster.nodes) * (world.connections // ROOMS)
    while True:
        for node in world.cluster.nodes:
            rooms = (await asyncio.to_thread(ask, node))["rooms"]
            told = {n: one["count"] for n, one in rooms.items() if n.startswith("room")}
            if set(told.values()) != {size}:
                raise AssertionError(f"{node!r} says {told}")

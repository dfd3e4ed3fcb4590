"""The faults of a storm: each does harm, undoes it, and says when it is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from websockets.exceptions import InvalidHandshake

from ..helpers.cluster import Node
from ..helpers.deaf import DeafClient
from ..helpers.eventually import aeventually
from .plan import Round, Step
from .visitors import Slot
from .world import PREFIX, World, ask

Fault = Callable[[World, Round], Awaitable[None]]

FAULTS: dict[str, Fault] = {}

FAILURES = ["connect", "joined", "receive", "group", "nobody", "disconnect"]
FLITS = 60
DEAF = 4
#: Frames of four kilobytes that no socket buffers for somebody who never reads.
FLOOD = 1500


def fault(*kinds: str) -> Callable[[Fault], Fault]:
    def register(function: Fault) -> Fault:
        FAULTS.update(dict.fromkeys(kinds, function))
        return function

    return register


def chosen(world: World, round: Round) -> Node:
    return world.cluster.nodes[round.node]


def others(world: World, round: Round) -> list[Node]:
    return [node for node in world.cluster.nodes if node is not chosen(world, round)]


# Nothing that harms a process or the store


@fault("calm")
async def calm(world: World, round: Round) -> None:
    world.ended()


@fault("drain")
async def drain(world: World, round: Round) -> None:
    """Everybody goes; nothing may be left, in the processes and in the store."""
    await asyncio.gather(*(slot.leave() for slot in world.slots))
    world.ended()
    await nothing_is_left(world)


@fault("exceptions")
async def exceptions(world: World, round: Round) -> None:
    """Handlers raise, in every place that there is."""
    slots = some(world.slots, round.choice, 2 * len(FAILURES))
    failures = zip(slots, FAILURES * 2)
    await asyncio.gather(*(slot.fail(where) for slot, where in failures))
    world.ended()


@fault("flits")
async def flits(world: World, round: Round) -> None:
    """Clients are gone up to two milliseconds after they asked for a WebSocket."""
    slots = some(world.slots, round.choice, FLITS)
    steps = [
        Step(0, "flit", slot.number, round.homes[slot.number], 2 * number / FLITS)
        for number, slot in enumerate(slots)
    ]
    await asyncio.gather(*(world.slots[step.slot].take(step) for step in steps))
    world.ended()


@fault("deaf")
async def deaf(world: World, round: Round) -> None:
    """Some never read while others talk; a process may close them, no more.

    Not behind the proxy, through which a flood takes longer than anybody's patience.
    """
    nodes = [node for node in world.cluster.nodes if node is not world.cut_off]
    node, room = nodes[round.node % len(nodes)], "too loud"
    near = [slot for slot in world.slots if slot.node is not world.cut_off]
    speaker, *listeners = some(near, round.choice, 4)
    for slot in (speaker, *listeners):
        await slot.take(Step(0, "move", slot.number, room, 0))
    clients = [
        DeafClient(node.ws_url(room, f"deaf.{number}.{round.number}"))
        for number in range(DEAF)
    ]
    try:
        with contextlib.suppress(OSError, InvalidHandshake):
            for client in clients:
                await asyncio.to_thread(client.open)
        await speaker.shout(FLOOD)
    finally:
        for client in clients:
            client.close()
    world.ended()


# Processes


@fault("kill")
async def kill(world: World, round: Round) -> None:
    await kill_nodes(world, round, [chosen(world, round)])


@fault("kill two")
async def kill_two(world: World, round: Round) -> None:
    await kill_nodes(world, round, others(world, round))


@fault("kill all")
async def kill_all(world: World, round: Round) -> None:
    """Nobody is left to notice; those who come next do."""
    await kill_nodes(world, round, world.cluster.nodes)
    await world.started_again()
    world.ended()
    # Not where the dead fill it, and who comes is turned away.
    room = next(room for room in round.homes if not room.startswith("small-"))
    await asyncio.gather(*(slot.enter(room) for slot in world.slots[:3]))


async def kill_nodes(world: World, round: Round, nodes: Sequence[Node]) -> None:
    if round.busy:
        world.note_killed(nodes)
    world.serving.difference_update(nodes)
    for node in nodes:
        node.kill()
    world.ended()
    world.start_again(nodes)


@fault("terminate")
async def terminate(world: World, round: Round) -> None:
    await terminate_nodes(world, [chosen(world, round)])


@fault("terminate all")
async def terminate_all(world: World, round: Round) -> None:
    await terminate_nodes(world, world.cluster.nodes)


async def terminate_nodes(world: World, nodes: Sequence[Node]) -> None:
    world.serving.difference_update(nodes)
    world.ended()
    await asyncio.gather(*(asyncio.to_thread(node.terminate) for node in nodes))
    world.start_again(nodes)


@fault("freeze", "freeze shortly")
async def freeze(world: World, round: Round) -> None:
    node = chosen(world, round)
    node.freeze()
    await asyncio.sleep(round.seconds)
    node.thaw()
    world.ended()


@fault("block", "block shortly")
async def block(world: World, round: Round) -> None:
    """The event loop does nothing; the process is alive, and so is its kernel side."""
    await ask(chosen(world, round), f"block/?seconds={round.seconds}")
    world.ended()


# The store


@fault("store emptied")
async def store_emptied(world: World, round: Round) -> None:
    await asyncio.to_thread(world.redis.flush)
    world.ended()


@fault("store restarted empty")
async def store_restarted_empty(world: World, round: Round) -> None:
    await asyncio.to_thread(world.redis.kill)
    await asyncio.sleep(round.seconds)
    await asyncio.to_thread(world.redis.restart, empty=True)
    world.ended()


@fault("store restarted")
async def store_restarted(world: World, round: Round) -> None:
    """It is back with what it held, but for the last milliseconds."""
    await asyncio.to_thread(world.redis.save)
    await asyncio.to_thread(world.redis.kill)
    await asyncio.sleep(round.seconds)
    await asyncio.to_thread(world.redis.start)
    world.ended()


@fault("store rewound")
async def store_rewound(world: World, round: Round) -> None:
    """It is back with what it held some time before."""
    await asyncio.to_thread(world.redis.save)
    await asyncio.sleep(round.seconds)
    await asyncio.to_thread(world.redis.kill)
    await asyncio.to_thread(world.redis.start)
    world.ended()


@fault("store paused", "store paused shortly")
async def store_paused(world: World, round: Round) -> None:
    world.redis.pause()
    await asyncio.sleep(round.seconds)
    world.redis.resume()
    world.ended()


@fault("store clients killed")
async def store_clients_killed(world: World, round: Round) -> None:
    await asyncio.to_thread(world.redis.kill_clients)
    world.ended()


@fault("key deleted")
async def key_deleted(world: World, round: Round) -> None:
    """One key is gone; each sort of key is as likely as the others."""
    with world.redis.client() as client:
        keys = sorted(client.scan_iter(match=f"{PREFIX}:groups:*", count=1000))
        sorts = sorted({sort_of(key) for key in keys})
        sort = sorts[int(round.choice * len(sorts))]
        alike = [key for key in keys if sort_of(key) == sort]
        key = alike[int(round.choice * 1000) % len(alike)]
        client.delete(key)
    world.notes.append(key)
    world.ended()


def sort_of(key: str) -> str:
    return key.split(":")[2]


# What is between a process and the store


@fault("cut off", "cut off shortly")
async def cut_off(world: World, round: Round) -> None:
    world.proxy.drop()
    await asyncio.sleep(round.seconds)
    world.proxy.heal()
    world.ended()


@fault("cut")
async def cut(world: World, round: Round) -> None:
    world.proxy.cut()
    world.ended()


@fault("refused")
async def refused(world: World, round: Round) -> None:
    world.proxy.refuse()
    world.proxy.cut()
    await asyncio.sleep(round.seconds)
    world.proxy.heal()
    world.ended()


@fault("delayed")
async def delayed(world: World, round: Round) -> None:
    world.proxy.delay(50 + 150 * round.choice)
    await asyncio.sleep(round.seconds)
    world.proxy.heal()
    world.ended()


# Two at once


@fault("kill and store emptied")
async def kill_and_store_emptied(world: World, round: Round) -> None:
    """What only the dead process and the lost data knew is gone for good."""
    node = chosen(world, round)
    world.note_killed([node])
    world.unknowable.leaves |= world.ids_on(node)
    world.unknowable.forgotten = {node.pid}
    node.kill()
    await asyncio.to_thread(world.redis.flush)
    world.ended()
    world.start_again([node])


@fault("freeze and store emptied")
async def freeze_and_store_emptied(world: World, round: Round) -> None:
    node = chosen(world, round)
    world.unknowable.hidden = world.ids_on(node)
    node.freeze()
    await asyncio.to_thread(world.redis.flush)
    await asyncio.sleep(round.seconds)
    node.thaw()
    world.ended()


# Helpers


def some(slots: Sequence[Slot], choice: float, number: int) -> list[Slot]:
    """Return so many slots, always the same ones for the same choice."""
    first = int(choice * len(slots))
    return [slots[(first + 7 * n) % len(slots)] for n in range(number)]


async def nothing_is_left(world: World, timeout: float = 15) -> None:
    """Wait until neither processes nor store hold anything; else note what it is."""

    async def left() -> list[Any]:
        return await world.remains() + world.leftovers()

    try:
        await aeventually(left, equals=[], timeout=timeout)
    except AssertionError as error:
        world.violations.append(f"left behind: {error}")

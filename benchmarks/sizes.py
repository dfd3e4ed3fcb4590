"""Bytes that a server keeps for one member, beside the layer's own group entry.

The sum of MEMORY USAGE over all keys, since a server's used memory wanders by more.
The members are connections of this process; their own channels are no keys.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

from channels.layers import get_channel_layer
from django.conf import settings
from django.test.utils import override_settings

from channels_groups.manager import get_group_manager
from tests.helpers.server import RedisServer, ServerMissing, find_server

from .local import Connections, Untold
from .machine import name_server
from .report import Report, number
from .settings import core

#: Of those that are there; as tests.helpers.server names them.
SERVERS = ("valkey", "redis")
ALIAS, BARE = "sizes", "sizes-bare"
#: Joins at once.
CHUNK = 100


async def compare_bytes(report: Report, redis: RedisServer) -> None:
    count = 50 if report.quick else 1000
    shapes = {f"{count:,} in a room": 1, "a room each": count}
    rows = []
    with ExitStack() as stack:
        for server in start_servers(stack):
            stack.enter_context(layers_of(server))
            for shape, rooms in shapes.items():
                names = [f"room-{index % rooms}" for index in range(count)]
                rows.append(await compare_with_entry(server, shape, names))
    report.add("bytes in Redis for one member", rows, rows)


def start_servers(stack: ExitStack) -> Iterator[RedisServer]:
    for kind in SERVERS:
        try:
            binary = find_server(kind)
        except ServerMissing:
            continue
        yield stack.enter_context(RedisServer(binary))


@contextmanager
def layers_of(server: RedisServer) -> Iterator[None]:
    layers = {alias: core(alias, server.url) for alias in (ALIAS, BARE)}
    ours = {**settings.CHANNELS_GROUPS, BARE: {"PLAIN_GROUP_SEND": False}}
    with override_settings(
        CHANNEL_LAYERS={**settings.CHANNEL_LAYERS, **layers}, CHANNELS_GROUPS=ours
    ):
        yield


async def compare_with_entry(
    server: RedisServer, shape: str, names: list[str]
) -> dict[str, str]:
    """Return a row: the layer's entry, ours, and ours with what is in the layer."""
    entry = await weigh_entries(server, names)
    ours, bare = await weigh_members(server, names, BARE)
    _, plain = await weigh_members(server, names, ALIAS)
    return {
        "server": name_server(server),
        "": shape,
        "group_add": number(entry),
        "a member": number(ours),
        "x group_add (<= 0.6)": number(ours / entry),
        "with entries in the layer": number(plain),
        "x group_add": number(plain / entry),
        "these without PLAIN_GROUP_SEND": number(bare),
        "that x group_add": number(bare / entry),
    }


async def weigh_entries(server: RedisServer, names: list[str]) -> float:
    layer = get_channel_layer(ALIAS)
    channels = [(name, await layer.new_channel()) for name in names]
    for name, channel in channels:
        await layer.group_add(name, channel)
    weight = weigh(server, f"{ALIAS}:group:*")
    for name, channel in channels:
        await layer.group_discard(name, channel)
    return weight / len(names)


async def weigh_members(
    server: RedisServer, names: list[str], alias: str
) -> tuple[float, float]:
    """Return what the store keeps of a member, and that with the layer's groups."""
    prefix = get_group_manager(alias).store.prefix
    async with Connections(Untold, alias, len(names)) as consumers:
        for start in range(0, len(names), CHUNK):
            some = zip(consumers[start : start + CHUNK], names[start:])
            await asyncio.gather(*(one.set_group(name) for one, name in some))
        ours = await asyncio.to_thread(weigh, server, f"{prefix}*")
        entries = await asyncio.to_thread(weigh, server, f"{alias}:group:*")
    return ours / len(names), (ours + entries) / len(names)


def weigh(server: RedisServer, pattern: str) -> int:
    """Return the bytes of all keys that match."""
    weight = 0
    with server.client() as client:
        keys = client.scan_iter(pattern, count=1000)
        while some := list(islice(keys, 1000)):
            pipeline = client.pipeline(transaction=False)
            for key in some:
                pipeline.memory_usage(key, samples=0)
            weight += sum(filter(None, pipeline.execute()))
    return weight

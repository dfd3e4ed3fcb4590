"""What grows with the number of members, and what must not."""

import asyncio
import time
import tracemalloc
from pathlib import Path
from typing import Any

from channels.layers import get_channel_layer

from channels_groups.manager import GroupManager, get_group_manager
from channels_groups.stores.base import Entry, Incarnation, Join, Member
from tests.helpers.server import RedisServer

from .local import Connections, Untold
from .report import Report, number

BATCH = 100
SIZES = (10, 10_000, 1_000_000)
CALLS = 200
#: Seconds over which heartbeats are counted.
WATCH = 5


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    await compare_counts(report, redis)
    redis.flush()
    await compare_heartbeats(report, redis)
    redis.flush()
    await compare_bytes(report, redis)
    redis.flush()
    await fill_groups(report, redis)


async def compare_counts(report: Report, redis: RedisServer) -> None:
    """acount() beside a bare ZCARD, and listing, as a group grows."""
    manager = get_group_manager("core")
    async with Filler(manager) as filler:
        rows = []
        for size in (10, 1000) if report.quick else SIZES:
            await filler.fill("listed", size)
            group = manager.group("listed")
            client = manager.store.client(0)  # type: ignore[attr-defined]
            key = f"{manager.store.prefix}index"  # type: ignore[attr-defined]
            await report.compare(
                f"count of {size:,} members",
                "us",
                {
                    "ZCARD": lambda: timed(lambda: client.zcard(key)),
                    "acount()": lambda: timed(group.acount),
                },
                against="ZCARD",
                targets={"acount()": "<= 1.3"},
            )
            rows.append(await list_members(group, size))
        report.add("listing", rows, rows)


async def list_members(group: Any, size: int) -> dict[str, Any]:
    start = time.perf_counter()
    listed = await walk(group)
    seconds = time.perf_counter() - start
    return {
        "members": f"{listed:,}",
        "us a member": number(seconds / size * 1e6),
        "peak kB held": number(await peak(group) / 1024),
    }


async def walk(group: Any) -> int:
    count = 0
    async for _ in group:
        count += 1
    return count


async def peak(group: Any) -> int:
    """Return the most bytes that listing some pages holds at once."""
    tracemalloc.start()
    try:
        count = 0
        async for _ in group:
            count += 1
            if count == 20_000:
                break
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def compare_heartbeats(report: Report, redis: RedisServer) -> None:
    """Commands that a process with idle connections sends, by its memberships."""
    rows = []
    connections = 10 if report.quick else 1000
    async with Connections(Untold, "core-bare", connections) as consumers:
        rooms = 0
        for wanted in (1, 2) if report.quick else (1, 10, 100):
            for room in range(rooms, wanted):
                await asyncio.gather(*(c.join_group(f"room-{room}") for c in consumers))
            rooms = wanted
            await asyncio.sleep(1)
            before = processed(redis)
            await asyncio.sleep(1 if report.quick else WATCH)
            rate = (processed(redis) - before) / (1 if report.quick else WATCH)
            memberships = f"{wanted * connections:,}"
            rows.append({"memberships": memberships, "commands a second": number(rate)})
    report.add("an idle process, script calls included", rows, rows)


def processed(redis: RedisServer) -> int:
    with redis.client() as client:
        return int(client.info("stats")["total_commands_processed"])


async def compare_bytes(report: Report, redis: RedisServer) -> None:
    """Bytes in Redis for one member, beside the layer's own entry."""
    count = 100 if report.quick else 10_000
    rows = []
    for title, groups in (("1,000 a room", count // 1000 or 1), ("a room each", count)):
        names = [f"room-{index % groups}" for index in range(count)]
        theirs = await untracked_bytes(redis, names)
        redis.flush()
        ours = await tracked_bytes(redis, names, in_layer=False)
        redis.flush()
        both = await tracked_bytes(redis, names, in_layer=True)
        redis.flush()
        rows.append(
            {
                "": title,
                "group_add": number(theirs),
                "a membership": number(ours),
                "x group_add": number(ours / theirs),
                "target": "<= 0.6",
                "with the layer's entries": number(both),
            }
        )
    report.add("bytes in Redis for one member", rows, rows)


async def untracked_bytes(redis: RedisServer, names: list[str]) -> float:
    layer = get_channel_layer("core")
    await layer.group_add("warm", await layer.new_channel())
    before = used(redis)
    for name in names:
        await layer.group_add(name, await layer.new_channel())
    return (used(redis) - before) / len(names)


async def tracked_bytes(redis: RedisServer, names: list[str], in_layer: bool) -> float:
    async with Filler(get_group_manager("core"), in_layer) as filler:
        await filler.join(["warm"])
        before = used(redis)
        await filler.join(names)
        return (used(redis) - before) / len(names)


def used(redis: RedisServer) -> int:
    with redis.client() as client:
        return int(client.info("memory")["used_memory_dataset"])


async def fill_groups(report: Report, redis: RedisServer) -> None:
    """Many memberships in many groups: what Redis holds, how long commands take."""
    groups, size = (10, 10) if report.quick else (100_000, 10)
    manager = get_group_manager("core")
    async with Filler(manager) as filler:
        with redis.client() as client:
            client.config_set("slowlog-log-slower-than", 2000)
            client.slowlog_reset()
        start = time.perf_counter()
        await filler.join([f"room-{i}" for _ in range(size) for i in range(groups)])
        seconds = time.perf_counter() - start
        with redis.client() as client:
            slow = client.slowlog_len()
            megabytes = client.info("memory")["used_memory"] / 2**20
        count, _ = await manager.agroup_count(), await manager.amembership_count()
        row = {
            "memberships": f"{groups * size:,}",
            "groups": f"{count:,}",
            "us a join": number(seconds / groups / size * 1e6),
            "MB in Redis": number(megabytes),
            "commands over 2 ms": slow,
        }
        report.add("many groups, written by one node", [row], [row])


class Filler:
    """A node that writes memberships into the store directly."""

    def __init__(self, manager: GroupManager, in_layer: bool = False) -> None:
        self._store = manager.store
        self._in_layer = in_layer
        self._node = Incarnation("filler", "specific.filler!" + "0" * 32)
        self._sequence = 0
        self._count = 0

    async def __aenter__(self) -> "Filler":
        await self._store.register(0, self._node, "", 3600)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._store.release(0, self._node)

    async def fill(self, group: str, size: int) -> None:
        """Let the group have so many members."""
        await self.join([group] * (size - await self._store.count(group)))

    async def join(self, groups: list[str]) -> None:
        for start in range(0, len(groups), BATCH):
            names = groups[start : start + BATCH]
            entries = {one: [self._entry(one)] for one in names if self._in_layer}
            self._sequence += 1
            joins = [Join(name, self._member()) for name in names]
            # To restore is allowed at any time, also soon after the last part's flush.
            await self._store.commit(
                0, self._node, self._sequence, joins, entries, restore=True
            )

    def _entry(self, group: str) -> Entry:
        return Entry(f"groups.{group}", self._node.channel)

    def _member(self) -> Member:
        self._count += 1
        channel = f"specific.filler!{self._count:032x}"
        return Member(f"{self._count:012x}", channel, None, {}, time.time())


async def timed(call: Any) -> float:
    """Return microseconds for each of some calls in a row."""
    start = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - start) / CALLS * 1e6

"""What grows with the number of members, and what must not."""

import asyncio
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from channels.layers import get_channel_layer

from channels_groups import evictor, writer
from channels_groups.manager import GroupManager, get_group_manager
from channels_groups.stores.base import Entry, Incarnation, Join, Leave, Member
from tests.helpers.server import RedisServer

from .local import Connections, Untold
from .report import Report, number

SIZES = (10, 10_000, 1_000_000)
CALLS = 200
#: Seconds over which heartbeats are counted.
WATCH = 5
#: Seconds after a flush in which a store takes nothing but what was there before.
REBUILDING = 2.5
#: Microseconds that a script may block the server for.
SLOW = 2000


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    await compare_counts(report, redis)
    redis.flush()
    await compare_heartbeats(report, redis)
    redis.flush()
    await compare_bytes(report, redis)
    redis.flush()
    await fill_groups(report, redis)
    redis.flush()
    await compare_scripts(report, redis)


async def compare_counts(report: Report, redis: RedisServer) -> None:
    """acount() beside a bare ZCARD, and listing, as a group grows."""
    manager = get_group_manager("core")
    async with Filler(manager) as filler:
        rows = []
        for size in (10, 1000) if report.quick else SIZES:
            await filler.fill("listed", size)
            group = manager.group("listed")
            await compare_count(report, f"count of {size:,} members", group)
            rows.append(await list_members(group, size))
        report.add("listing", rows, rows)
        async with Connections(Untold, "core", 1):
            title = "count in a process with connections"
            await compare_count(report, title, group)


async def compare_count(report: Report, title: str, group: Any) -> None:
    store = group.manager.store
    client = store.client(0)
    await report.compare(
        title,
        "us",
        {
            "ZCARD": lambda: timed(lambda: client.zcard(f"{store.prefix}index")),
            "acount()": lambda: timed(group.acount),
        },
        against="ZCARD",
        targets={"acount()": "<= 1.3"},
    )


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
        for wanted in (0, 1) if report.quick else (0, 1, 10, 100):
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
        start = time.perf_counter()
        await filler.join([f"room-{i}" for _ in range(size) for i in range(groups)])
        seconds = time.perf_counter() - start
        with redis.client() as client:
            megabytes = client.info("memory")["used_memory"] / 2**20
        count, _ = await manager.agroup_count(), await manager.amembership_count()
        row = {
            "memberships": f"{groups * size:,}",
            "groups": f"{count:,}",
            "us a join": number(seconds / groups / size * 1e6),
            "MB in Redis": number(megabytes),
        }
        report.add("many groups, written by one node", [row], [row])


async def compare_scripts(report: Report, redis: RedisServer) -> None:
    """How long scripts block the server: SLOWLOG's word.

    For a process' members as they all join, leave and are evicted, in batches as the
    library makes them.
    """
    rows: list[dict[str, Any]] = []
    members = 200 if report.quick else 100_000
    shapes = {"one room": 1, "100 rooms": 100, "a room each": members}
    store = get_group_manager("core").store
    keeper = Incarnation("keeper", "specific.filler!" + "2" * 32)
    await store.register(0, keeper, "", 3600)
    await asyncio.sleep(REBUILDING)
    for users in (False, True):
        for shape, rooms in shapes.items():
            title = f"{shape}, users" if users else shape
            names = [f"room-{index % rooms}" for index in range(members)]
            await time_scripts(redis, title, names, users, rows)
    await store.release(0, keeper)
    report.add(f"scripts that write {members:,} members", rows, rows)


async def time_scripts(
    redis: RedisServer,
    title: str,
    names: list[str],
    users: bool,
    rows: list[dict[str, Any]],
) -> None:
    manager = get_group_manager("core")
    filler = Filler(manager, in_layer=True, users=users, restore=False)
    async with filler:
        with ScriptTimes(redis, f"{title}: join", rows):
            await filler.join(names)
        with ScriptTimes(redis, f"{title}: evict", rows):
            await filler.evict()
    async with filler:
        await filler.join(names[:10_000])
        with ScriptTimes(redis, f"{title}: leave", rows):
            await filler.leave()


class ScriptTimes:
    """What the server says of the scripts that it has run meanwhile, as a row."""

    def __init__(
        self, redis: RedisServer, title: str, rows: list[dict[str, Any]]
    ) -> None:
        self._redis = redis
        self._title = title
        self._rows = rows

    def __enter__(self) -> None:
        with self._redis.client() as client:
            client.config_set("slowlog-log-slower-than", SLOW)
            client.config_set("slowlog-max-len", 100_000)
            client.slowlog_reset()
            client.config_resetstat()
            self._cpu = cpu(client)

    def __exit__(self, *exc: object) -> None:
        with self._redis.client() as client:
            used = cpu(client) - self._cpu
            scripts = client.info("commandstats")["cmdstat_evalsha"]
            slow = [
                entry["duration"]
                for entry in client.slowlog_get(100_000)
                if "EVAL" in str(entry["command"])
            ]
        self._rows.append(
            {
                "": self._title,
                "scripts": f"{scripts['calls']:,}",
                "us each": number(scripts["usec_per_call"]),
                "of the server's CPU": number(used / scripts["calls"] * 1e6),
                f"over {SLOW // 1000} ms": len(slow),
                "the longest of those, ms": number(max(slow, default=0) / 1000),
            }
        )


def cpu(client: Any) -> float:
    """Return the seconds of CPU that the server has used."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


class Filler:
    """A node that writes memberships into the store directly."""

    def __init__(
        self,
        manager: GroupManager,
        in_layer: bool = False,
        users: bool = False,
        restore: bool = True,
    ) -> None:
        self._store = manager.store
        self._in_layer = in_layer
        self._users = users
        #: This is allowed at any time, also soon after the last part's flush.
        self._restore = restore
        self._joined: list[Join] = []
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
        joins = [Join(name, self._member()) for name in groups]
        self._joined += joins
        await self._commit(joins)

    async def leave(self) -> None:
        """Take all out again."""
        joined, self._joined = self._joined, []
        await self._commit([Leave(one.group, one.member) for one in joined])

    async def evict(self) -> None:
        """Be evicted by another node."""
        other = Incarnation("survivor", "specific.filler!" + "1" * 32)
        await self._store.register(0, other, "", 3600)
        await self._store.renew(0, self._node, "", 0, 0)
        sequence, done = 0, False
        while not done:
            sequence += 1
            evicting = self._store.evict(
                0, other, sequence, self._node.id, 1, 0, evictor.BATCH
            )
            done = (await evicting).done
        await self._store.release(0, other)
        self._joined.clear()

    async def _commit(self, operations: list[Any]) -> None:
        for batch in batches(operations):
            groups = {one.group for one in batch} if self._in_layer else ()
            entries = {one: [self._entry(one)] for one in groups}
            self._sequence += 1
            await self._store.commit(
                0, self._node, self._sequence, batch, entries, self._restore
            )

    def _entry(self, group: str) -> Entry:
        return Entry(f"groups.{group}", self._node.channel)

    def _member(self) -> Member:
        self._count += 1
        channel = f"specific.filler!{self._count:032x}"
        user = f"user-{self._count}" if self._users else None
        return Member(f"{self._count:012x}", channel, user, {}, time.time())


def batches(operations: list[Any]) -> Iterator[list[Any]]:
    """Cut them up as a writer does that finds them all in its queue."""
    batch: list[Any] = []
    groups: set[str] = set()
    for operation in operations:
        if len(batch) + len(groups) >= writer.BATCH:
            yield batch
            batch, groups = [], set()
        batch.append(operation)
        groups.add(operation.group)
    yield batch


async def timed(call: Any) -> float:
    """Return microseconds for each of some calls in a row."""
    start = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - start) / CALLS * 1e6

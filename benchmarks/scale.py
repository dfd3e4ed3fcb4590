"""What grows with the number of members, and what must not."""

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from channels_groups.manager import get_group_manager
from channels_groups.stores.base import Incarnation
from tests.helpers.server import RedisServer

from .filler import CHANNEL, Filler
from .local import Connections, Untold
from .report import Report, number
from .sizes import compare_bytes, weigh

SIZES = (10, 10_000, 1_000_000)
CALLS = 200
#: Groups of ten, and the processes that their members are spread over.
FILLED = ((100_000, 1), (10_000, 10))
FILLED_QUICKLY = ((10, 1), (10, 10))
#: The keys of the layer's groups.
ENTRIES = "core:group:*"
#: Its ratio varies the most.
COUNT_ROUNDS = 21
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
        for size in (10, 100) if report.quick else SIZES:
            await filler.fill("listed", size)
            group = manager.group("listed")
            await compare_count(report, f"count of {size:,} members", group)
            rows.append(await list_members(group, size))
        report.add("listing", rows, rows)
        async with Connections(Untold, "core", 1):
            title = "count in a process with connections"
            await compare_count(report, title, group)


async def compare_count(report: Report, title: str, group: Any) -> None:
    """By the clock and by this process' processor time, in more rounds than others."""
    store = group.manager.store
    client = store.client(0)
    calls = {
        "ZCARD": Calls(lambda: client.zcard(f"{store.prefix}index")),
        "acount()": Calls(group.acount),
    }
    await report.compare(
        title,
        "us",
        {name: one.time for name, one in calls.items()},
        against={"ZCARD": "<= 1.3"},
        rounds=1 if report.quick else max(report.rounds, COUNT_ROUNDS),
    )
    report.add_ratios(
        f"{title}, processor time",
        "us",
        {name: one.cpu for name, one in calls.items()},
        against="ZCARD",
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
    """Return the most bytes that listing it holds at once."""
    tracemalloc.start()
    try:
        await walk(group)
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


async def fill_groups(report: Report, redis: RedisServer) -> None:
    """Ten members in each of many groups, of one process or of ten."""
    rows = []
    for groups, nodes in FILLED_QUICKLY if report.quick else FILLED:
        rows.append(await fill_from(redis, groups, nodes))
        redis.flush()
    report.add("many groups of ten, written in batches", rows, rows)


async def fill_from(redis: RedisServer, groups: int, nodes: int) -> dict[str, str]:
    manager = get_group_manager("core")
    names, members = [f"room-{index}" for index in range(groups)], groups * 10
    async with AsyncExitStack() as stack:
        fillers = []
        for index in range(nodes):
            filler = Filler(manager, in_layer=True, number=index)
            fillers.append(await stack.enter_async_context(filler))
        with redis.client() as client:
            client.config_resetstat()
            for turn in range(10):
                await fillers[turn % nodes].join(names)
            script = client.info("commandstats")["cmdstat_evalsha"]
            megabytes = client.info("memory")["used_memory"] / 2**20
        count = await manager.agroup_count()
        ours, entries = weigh(redis, f"{manager.store.prefix}*"), weigh(redis, ENTRIES)
    return {
        "members": f"{members:,}",
        "groups": f"{count:,}",
        "processes": str(nodes),
        "us a join in scripts": number(script["usec"] / members),
        "bytes a member": number(ours / members),
        "with its entry in the layer": number((ours + entries) / members),
        "MB in Redis": number(megabytes),
    }


async def compare_scripts(report: Report, redis: RedisServer) -> None:
    """How long scripts block the server: SLOWLOG's word.

    For a process' members as they all join, leave and are evicted, in batches as the
    library makes them; and as others read while all of them are dead.
    """
    rows: list[dict[str, Any]] = []
    reading: list[dict[str, Any]] = []
    members = 100 if report.quick else 100_000
    shapes = {
        "one room": 1,
        f"{members // 1000 or 2} rooms": members // 1000 or 2,
        "a room each": members,
    }
    store = get_group_manager("core").store
    keeper = Incarnation("keeper", CHANNEL + "2" * 32)
    await store.register(0, keeper, "", 3600)
    await asyncio.sleep(REBUILDING)
    for users in (False, True):
        for shape, rooms in shapes.items():
            title = f"{shape}, users" if users else shape
            names = [f"room-{index % rooms}" for index in range(members)]
            await time_scripts(redis, title, names, users, rows, reading)
    await store.release(0, keeper)
    report.add(f"scripts that write {members:,} members", rows, rows)
    title = f"scripts that read beside {members:,} members of a dead process"
    report.add(title, reading, reading)


async def time_scripts(
    redis: RedisServer,
    title: str,
    names: list[str],
    users: bool,
    rows: list[dict[str, Any]],
    reading: list[dict[str, Any]],
) -> None:
    manager = get_group_manager("core")
    filler = Filler(manager, in_layer=True, users=users, restore=False)
    async with filler:
        with ScriptTimes(redis, f"{title}: join", rows):
            await filler.join(names)
        await filler.expire()
        if users:
            await time_reading(redis, title, names, reading)
        with ScriptTimes(redis, f"{title}: evict", rows):
            await filler.evict()
    async with filler:
        await filler.join(names[:10_000])
        with ScriptTimes(redis, f"{title}: leave", rows):
            await filler.leave()


async def time_reading(
    redis: RedisServer, title: str, names: list[str], rows: list[dict[str, Any]]
) -> None:
    manager = get_group_manager("core")
    store, group, some = manager.store, manager.group(names[0]), sorted({*names[:500]})
    readers: dict[str, Callable[[], Awaitable[Any]]] = {
        "count": group.acount,
        "users": group.auser_count,
        "summaries": lambda: store.summaries(0, some),
        "ranking": lambda: store.ranking(0, 0, 1000),
        "list": lambda: store.groups("room-", None),
        "groups": manager.agroup_count,
        "memberships": manager.amembership_count,
    }
    async with Filler(manager, users=True, restore=False, number=1) as living:
        await living.join([names[0]])
        for reader, read in readers.items():
            with ScriptTimes(redis, f"{title}: {reader}", rows):
                for _ in range(5):
                    await read()
        await living.leave()


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


class Calls:
    """Some calls in a row."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call
        #: Microseconds of processor time for each, of each sample.
        self.cpu: list[float] = []

    async def time(self) -> float:
        """Return microseconds for each."""
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(CALLS):
            await self._call()
        self.cpu.append((time.process_time() - cpu) / CALLS * 1e6)
        return (time.perf_counter() - start) / CALLS * 1e6

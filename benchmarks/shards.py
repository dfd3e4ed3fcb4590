"""How the cost of joining grows with the number of Redis hosts."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

from django.conf import settings
from django.test.utils import override_settings

from tests.helpers.server import RedisServer

from .join import Lab, tracked
from .report import Report, number
from .settings import core
from .traffic import Traffic

HOSTS = (1, 2, 3)
#: Enough to be spread evenly.
ROOMS = 60
#: Seconds over which an idle process' commands are counted.
WATCH = 5


async def run(report: Report, redis: RedisServer, scratch: Path) -> None:
    with ExitStack() as stack:
        servers = [redis]
        servers += [stack.enter_context(RedisServer()) for _ in HOSTS[1:]]
        stack.enter_context(layers_of(servers))
        await compare_hosts(report, servers)


@contextmanager
def layers_of(servers: list[RedisServer]) -> Iterator[None]:
    """Let the layer hosts-1 be on the first of the servers, and so on."""
    urls = [server.url for server in servers]
    layers = {
        f"hosts-{count}": core(f"hosts-{count}", *urls[:count]) for count in HOSTS
    }
    with override_settings(CHANNEL_LAYERS={**settings.CHANNEL_LAYERS, **layers}):
        yield


async def compare_hosts(report: Report, servers: list[RedisServer]) -> None:
    async with AsyncExitStack() as stack:
        labs = {}
        for count in HOSTS:
            lab = Lab(report, f"hosts-{count}", rooms=ROOMS)
            labs[f"{count} of Redis"] = await stack.enter_async_context(lab)
        crowd = lab.crowds[-1]
        samples = {name: lab.sample(tracked, crowd) for name, lab in labs.items()}
        await report.compare(
            f"join and leave, {crowd:,} at a time in {ROOMS} rooms",
            "us a pair",
            samples,
            against="1 of Redis",
        )
    rows = []
    for count in HOSTS:
        async with Lab(report, f"hosts-{count}", rooms=ROOMS) as lab:
            rows.append(await count_commands(report, lab, servers[:count]))
    report.add("commands of one process", rows, rows)


async def count_commands(
    report: Report, lab: Lab, servers: list[RedisServer]
) -> dict[str, str]:
    crowd = lab.crowds[-1]
    with Traffic(servers) as joining:
        await lab.sample(tracked, crowd)()
    await asyncio.sleep(1)
    watch = 1 if report.quick else WATCH
    with Traffic(servers) as idle:
        await asyncio.sleep(watch)
    return {
        "hosts": str(len(servers)),
        "of clients for each pair": number(joining.clients / crowd),
        "in scripts for each pair": number(joining.scripts / crowd),
        "of clients, a second at rest": number(idle.clients / watch),
        "in scripts, a second at rest": number(idle.scripts / watch),
    }

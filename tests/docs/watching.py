"""What the pages about ``manage.py groups`` have happen, and wait for."""

import asyncio
import signal

from transcripts import matches

from channels_groups.listing import list_processes
from channels_groups.manager import get_group_manager


async def check_watch(page, enter):
    """Have happen what the page shows, until the command tells of it."""
    where, _, code = page.take()
    command, _, expected = code.removeprefix("$ ").partition("\n")
    watch = await asyncio.create_subprocess_exec(
        *command.split(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed = await read(watch)
        # The processes know of it with their next renewal.
        while "cellar" not in await read(watch, patience=0.5):
            async with enter("cellar", "somebody"):
                pass
        async with enter("garden", "cid"):
            pass
        while "destroyed" not in printed:
            line = await read(watch)
            printed += line if "garden" in line else ""
        assert matches(expected, printed), f"{where}: {printed}"
    finally:
        watch.send_signal(signal.SIGINT)
        await watch.wait()


async def count_connections():
    """Return those of each process, as of its last renewal."""
    processes = await list_processes(get_group_manager().store)
    return [one.connections for one in processes]


async def read(watch, patience=20):
    """Return the next line, or nothing."""
    try:
        return (await asyncio.wait_for(watch.stdout.readline(), patience)).decode()
    except asyncio.TimeoutError:
        return ""

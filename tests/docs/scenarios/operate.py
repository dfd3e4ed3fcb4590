import asyncio
import signal

import pytest
from eventually import aeventually
from transcripts import matches
from websockets.asyncio.client import connect

from channels_groups.manager import get_group


@pytest.fixture
async def enter(serve):
    """Return a function that enters a group as somebody."""
    port = await serve("daphne", "-p", "0", "asgi:application")

    def enter(group, user):
        return connect(f"ws://127.0.0.1:{port}/{group}?{user}", proxy=None)

    return enter


async def test_page(page, enter):
    async with (
        enter("kitchen", "ann") as ann,
        enter("kitchen", "bob"),
        enter("lobby", "ann") as lobby,
    ):
        await page.run()
        await page.run()
        await check_watch(page, enter)
        await page.run()
        await page.run()
        while await asyncio.wait_for(ann.recv(), 20) != "Dinner is ready.":
            pass
        await lobby.wait_closed()
        assert lobby.close_code == 4000
        await aeventually(get_group("lobby").acount, equals=0)
        await page.run()


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
        assert matches(expected, printed), printed
    finally:
        watch.send_signal(signal.SIGINT)
        await watch.wait()


async def read(watch, patience=20):
    """Return the next line, or nothing."""
    try:
        return (await asyncio.wait_for(watch.stdout.readline(), patience)).decode()
    except asyncio.TimeoutError:
        return ""

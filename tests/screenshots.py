"""Take the README's pictures of the demo: ``python -m tests.screenshots``."""

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote, urlencode

from .helpers.browser import Browser
from .helpers.client import connect
from .helpers.cluster import Cluster
from .helpers.layers import wait_until_seasoned
from .helpers.server import RedisServer

IMAGES = Path(__file__).parents[1] / "docs" / "images"
ROOMS = {
    "Lobby": ["Mira", "Tomás", "Yuki", "Amadou", "Ines", "Pavel", "Noor"],
    "Reading circle": ["Mira", "Selma", "Ola"],
    "Кухня": ["Yuki", "Olena"],
    "small-chess": ["Pavel", "Noor"],
}
TALK = [
    ("Tomás", "Good morning! Who has brought the plans?"),
    ("Yuki", "I have them here, both versions."),
    ("Amadou", "Then let us begin. Ines, are you on the train?"),
    ("Ines", "Yes. The tunnel is behind me, I am back."),
]


async def main():
    """Fill a demo of three processes with visitors and photograph it."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        RedisServer() as redis,
        Cluster(redis.url, Path(scratch) / "demo") as cluster,
    ):
        await asyncio.to_thread(wait_until_seasoned, redis)
        await asyncio.to_thread(cluster.start, "daphne", "daphne", "uvicorn")
        async with AsyncExitStack() as stack:
            visitors = {}
            for room, names in ROOMS.items():
                for number, name in enumerate(names):
                    client = connect(cluster.nodes[number % 3], room, name)
                    visitors[room, name] = await stack.enter_async_context(client)
            await asyncio.to_thread(take_lobby, Path(scratch), cluster)
            await take_room(Path(scratch), cluster, visitors, "room", "desktop")
            await take_room(Path(scratch), cluster, visitors, "room-phone", "phone")


def take_lobby(scratch, cluster):
    """Photograph the lobby, as a phone shows it."""
    with Browser(scratch / "lobby", size="phone") as browser:
        browser.get(f"{cluster.nodes[0].url}/")
        browser.eventually(lambda: len(browser.find_all("#rooms li")) == len(ROOMS))
        keep(browser, "lobby")


async def take_room(scratch, cluster, visitors, name, size):
    """Photograph a room in which people talk."""
    browser = Browser(scratch / name, size=size)
    try:
        query = urlencode({"name": "Anouk"})
        url = f"{cluster.nodes[1].url}/rooms/{quote('Lobby')}/?{query}"
        await asyncio.to_thread(browser.get, url)
        members = len(ROOMS["Lobby"]) + 1
        await asyncio.to_thread(
            browser.eventually, lambda: len(browser.find_all("#members li")) == members
        )
        for speaker, text in TALK:
            await visitors["Lobby", speaker].say(text)
            await asyncio.to_thread(
                browser.eventually, lambda: text in browser.find("#log").text
            )
        await asyncio.to_thread(keep, browser, name)
    finally:
        browser.quit()


def keep(browser, name):
    """Save what the browser shows into the documentation."""
    shutil.move(browser.screenshot(name), IMAGES / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(main())

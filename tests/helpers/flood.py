"""A room in which one says a lot, and those who listen to it."""

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .client import Client
from .cluster import Node
from .deaf import DeafClient
from .eventually import aeventually

#: What is said at once, before the speaker has heard itself.
AT_ONCE = 50


class Listener(Client):
    """A client that remembers no more than the number of what is said in a flood."""

    def __init__(self, node: Node, room: str, name: str) -> None:
        super().__init__(node.ws_url(room, name), room=room, name=name)
        self.heard: list[int] = []
        self._awaited = -1
        self._came = asyncio.Event()

    async def hear(self, number: int, timeout: float) -> None:
        """Wait until it has heard this number."""
        self._awaited = number
        self._came.clear()
        if not self.heard or self.heard[-1] < number:
            await asyncio.wait_for(self._came.wait(), timeout)

    def _learn(self, message: dict[str, Any]) -> None:
        number = message.get("text", "").partition(" ")[0]
        if message["type"] == "said" and number.isdigit():
            self.heard.append(int(number))
            if self.heard[-1] >= self._awaited:
                self._came.set()
        else:
            super()._learn(message)


async def flood(
    listeners: Sequence[Listener], messages: int, size: int, timeout: float = 120
) -> float:
    """Let the first say numbers with so many characters; return the seconds it took.

    It says them no faster than it hears itself: channels_redis core drops what
    exceeds its capacity. All of `listeners` have heard the last one at the end.
    """
    speaker = listeners[0]
    for listener in listeners:
        listener.heard.clear()
    began = time.monotonic()
    for number in range(messages):
        await speaker.say(f"{number} {'x' * size}")
        if number % AT_ONCE == AT_ONCE - 1:
            await speaker.hear(number, timeout)
    for listener in listeners:
        await listener.hear(messages - 1, timeout)
    return time.monotonic() - began


async def read_again(
    node: Node, room: str, members: int, deaf: Sequence[DeafClient]
) -> list[int | None]:
    """Let some read once only so many members are left; return their close codes."""

    async def count() -> Any:
        return (await asyncio.to_thread(node.room, room))["count"]

    await aeventually(count, equals=members, timeout=120)
    ends = (asyncio.to_thread(client.read_to_end) for client in deaf)
    return await asyncio.gather(*ends)


def memory(node: Node, what: str = "VmRSS") -> float:
    """Return the megabytes of a process; "VmHWM" is the most that it ever had."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0

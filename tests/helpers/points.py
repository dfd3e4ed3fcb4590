"""The places in a join, a move, a leave and an end where something may come between."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from channels_groups.announcer import Announcement
from channels_groups.manager import GroupManager, get_group_manager
from channels_groups.relay import Relay
from channels_groups.stores.base import Confirm, Join, Leave, Update

Between = Callable[[], Awaitable[None]]


def store() -> Any:
    return type(get_group_manager().store)


def commits(kind: type[Any]) -> Callable[..., bool]:
    """Return whether a commit has an operation of some kind."""

    def is_it(
        store: Any, shard: int, node: Any, number: int, todo: Any, *_: Any
    ) -> bool:
        return any(isinstance(operation, kind) for operation in todo)

    return is_it


def always(*args: Any) -> bool:
    return True


#: By name: who has the method, its name, and what its arguments must be like.
POINTS: dict[str, tuple[Callable[[], Any], str, Callable[..., bool]]] = {
    "policy": (lambda: GroupManager, "aget_group", always),
    "enter": (lambda: Relay, "enter", always),
    "join": (store, "commit", commits(Join)),
    "announce": (lambda: Announcement, "fire", always),
    "leave": (store, "commit", commits(Leave)),
    "update": (store, "commit", commits(Update)),
    "confirm": (store, "commit", commits(Confirm)),
    "exit": (lambda: Relay, "exit", always),
    "register": (store, "register", always),
    "release": (store, "release", always),
}


def come_between(
    name: str, between: Between, patch: Callable[[Any, str, Any], None] = setattr
) -> None:
    """Let something happen, once, "before enter", "after join" and the like."""
    when, _, name = name.partition(" ")
    owner, method, is_it = POINTS[name]
    original = getattr(owner(), method)
    happened = False

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal happened
        first, happened = not happened and is_it(*args), happened or is_it(*args)
        if first and when == "before":
            await between()
        result = await original(*args, **kwargs)
        if first and when == "after":
            await between()
        return result

    patch(owner(), method, wrapped)


class Pause:
    """Holds what comes to it until it is told to go on, or to fail."""

    def __init__(self):
        self.reached = asyncio.Event()
        self.over = asyncio.Event()
        self.error = None

    async def __call__(self):
        self.reached.set()
        await self.over.wait()
        if self.error:
            raise self.error

    def end(self):
        self.over.set()

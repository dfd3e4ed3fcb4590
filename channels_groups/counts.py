"""The counts that pages show: one socket per page, one reading per process.

A page can watch only what a template has rendered for it, since the names on it are
signed; ``GroupManager.may_count()`` may ask for more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from typing import Any, Iterable
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.core import signing

from .exceptions import StoreUnavailable
from .groups import ConnectionGroup
from .manager import GroupManager, get_group, get_group_manager
from .stores.base import BaseStore, StoreRebuilding

logger = logging.getLogger("channels_groups")

#: Where the socket is, under the script's prefix.
PATH = "groups/counts/"
#: Seconds between two readings, and so between two messages to a page.
INTERVAL = 1.0
#: Groups that one call reads.
READ = 500
#: Groups that one page may watch.
MAX_WATCHED = 1000

SALT = "channels_groups.counts"


def make_token(group: ConnectionGroup) -> str:
    """Return what lets a page watch the group's count."""
    return signing.Signer(salt=SALT).sign_object([group.manager.alias, group.name])


def read_token(token: Any) -> ConnectionGroup | None:
    """Return the group of a token, or None if it is not one of make_token()'s.

    It may be one of a page that was rendered before the settings changed.
    """
    try:
        alias, name = signing.Signer(salt=SALT).unsign_object(token)
        return get_group(name, alias) if alias in settings.CHANNEL_LAYERS else None
    except (signing.BadSignature, TypeError, ValueError, AttributeError):
        return None


class Board:
    """The counts of all groups that the pages of one event loop watch."""

    _boards: WeakKeyDictionary[asyncio.AbstractEventLoop, Board] = WeakKeyDictionary()

    def __init__(self) -> None:
        self.counts: dict[ConnectionGroup, int] = {}
        self._watched: Counter[ConnectionGroup] = Counter()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of_this_loop(cls) -> Board:
        """Return the running loop's board."""
        return cls._boards.setdefault(asyncio.get_running_loop(), cls())

    def watch(self, groups: Iterable[ConnectionGroup]) -> None:
        """Read these groups from now on."""
        self._watched.update(groups)
        if self._watched and self._task is None:
            self._task = asyncio.create_task(self._run(), name="read groups' counts")

    async def forget(self, groups: Iterable[ConnectionGroup]) -> None:
        """Read these groups no more; return when nothing goes on for nobody."""
        self._watched.subtract(groups)
        self._watched += Counter()  # Without those that are watched no more.
        for group in self.counts.keys() - self._watched.keys():
            del self.counts[group]
        if not self._watched and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    async def change(self) -> None:
        """Wait for the next reading that finds something different."""
        async with self._changed:
            await self._changed.wait()

    async def _run(self) -> None:
        attached: dict[str, BaseStore] = {}
        try:
            while True:
                try:
                    await self._read(attached)
                except Exception:
                    what = "Counts were not read; it tries again."
                    logger.exception(what, extra={"aliases": [*attached]})
                await asyncio.sleep(INTERVAL)
        finally:
            for store in attached.values():
                await store.detach()

    async def _read(self, attached: dict[str, BaseStore]) -> None:
        before = dict(self.counts)
        shards: dict[tuple[str, int], list[ConnectionGroup]] = defaultdict(list)
        for group in self._watched:
            alias = group.manager.alias
            if alias not in attached:
                attached[alias] = get_group_manager(alias).store
                attached[alias].attach()
            shards[alias, attached[alias].shard(group.name)].append(group)
        try:
            for (alias, shard), groups in shards.items():
                for start in range(0, len(groups), READ):
                    some = groups[start : start + READ]
                    await self._read_some(attached[alias], shard, some)
        finally:
            if self.counts != before:
                async with self._changed:
                    self._changed.notify_all()

    async def _read_some(
        self, store: BaseStore, shard: int, groups: list[ConnectionGroup]
    ) -> None:
        """Read some groups; while the store does not answer, what is known stays."""
        try:
            summaries = await store.summaries(shard, [group.name for group in groups])
        except (StoreUnavailable, StoreRebuilding):
            logger.debug("Counts were not read.", exc_info=True)
            return
        for group, summary in zip(groups, summaries):
            if group in self._watched:
                self.counts[group] = summary.count


class CountsConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """Tell a page the counts that it shows, at most once a second, all in one message.

    The page sends ``{"type": "group.counts", "list", "tokens": [...]}`` and gets
    ``{"type": "group.counts", "list", "counts": {"<index of a token>": count}}`` with
    what is new; ``list`` is anything. It needs no channel layer and is in no group.
    """

    channel_layer_alias = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        self._board = Board.of_this_loop()
        self._groups: dict[int, ConnectionGroup] = {}
        self._list: Any = None
        self._pushing: asyncio.Task[None] | None = None
        try:
            return await super().__call__(scope, receive, send)
        finally:
            await self._watch({})

    async def receive(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        if text_data:
            await super().receive(text_data=text_data, **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "group.ping":
            await self.send_json({"type": "group.pong"})
        elif kind == "group.counts" and isinstance(content.get("tokens"), list):
            await self._watch({})
            self._list = content.get("list")
            await self._watch(await self._allowed(content["tokens"][:MAX_WATCHED]))

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        try:
            return await super().decode_json(text_data)
        except (ValueError, RecursionError):
            return None

    async def _allowed(self, tokens: list[Any]) -> dict[int, ConnectionGroup]:
        """Return the groups of the tokens that are genuine, and that may be counted."""
        groups = {}
        for number, token in enumerate(tokens):
            group = read_token(token)
            if group is not None and await _may_count(group, self.scope):
                groups[number] = group
        return groups

    async def _watch(self, groups: dict[int, ConnectionGroup]) -> None:
        """Watch these groups in the place of the former ones."""
        if self._pushing:
            self._pushing.cancel()
            await asyncio.wait([self._pushing])
            self._pushing = None
        former, self._groups = self._groups, groups
        self._board.watch(groups.values())
        await self._board.forget(former.values())
        if groups:
            self._pushing = asyncio.create_task(self._push(), name="push counts")

    async def _push(self) -> None:
        shown: dict[int, int] = {}
        with contextlib.suppress(OSError, RuntimeError):  # The client is gone.
            while True:
                counts = self._board.counts
                here = {n: counts[g] for n, g in self._groups.items() if g in counts}
                new = {n: count for n, count in here.items() if shown.get(n) != count}
                if new:
                    shown.update(new)
                    about = {"type": "group.counts", "list": self._list}
                    await self.send_json({**about, "counts": new})
                else:
                    await self._board.change()


async def _may_count(group: ConnectionGroup, scope: Any) -> bool:
    """Ask the manager, in a thread if the answer is the user's code."""
    manager = group.manager
    if type(manager).may_count is GroupManager.may_count:
        return manager.may_count(group, scope)
    return bool(await database_sync_to_async(manager.may_count)(group, scope))

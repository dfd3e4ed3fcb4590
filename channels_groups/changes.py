"""Telling members who joined and left, gathered over CHANGE_INTERVAL."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from . import names
from .connection import Message
from .exceptions import StoreUnavailable
from .groups import Connection, ConnectionGroup, GroupChange
from .membership import LocalGroup, Membership
from .relay import call_layer
from .stores.base import Answer, Member

if TYPE_CHECKING:
    from .manager import GroupManager

logger = logging.getLogger("channels_groups")


class Changes:
    """The changes that this node's commits made and its members are told of."""

    def __init__(self, manager: GroupManager, interval: float) -> None:
        self._manager = manager
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[str, Message] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    def add(self, kind: str, group: str, member: Member, answer: Answer) -> None:
        """Gather one change; kind is "joined" or "left".

        Within one message everybody joined before anybody left, so one who left
        and joined again begins another.
        """
        change = self._gathered.get(group)
        if kind == "joined" and change and _has(change["left"], member.id):
            self._flush(group)
            change = None
        if change is None:
            change = self._gathered[group] = {"joined": [], "left": []}
            timer = self._loop.call_later(self._interval, self._flush, group)
            self._timers[group] = timer
        change[kind].append([answer.revision, *_pack(member)])
        change["count"] = answer.count
        change["user_count"] = answer.user_count
        change["revision"] = answer.revision

    async def stop(self) -> None:
        """Send what is gathered and wait for the end."""
        for group in list(self._gathered):
            self._flush(group)
        while self._sending:
            await asyncio.wait(self._sending.values())

    def tell(self, local: LocalGroup, message: Message) -> None:
        """Give a change that arrived to the members with hooks."""
        news = News(self._manager.group(message["group"]), message)
        for membership in list(local.members):
            if membership.told:
                membership.deliver(news.tell, membership)

    def own_leave(self, membership: Membership, answer: Answer) -> GroupChange:
        """Return the change that a member is told of when it has left itself."""
        message = {
            "joined": [],
            "left": [[answer.revision, *_pack(membership.member)]],
            "count": answer.count,
            "user_count": answer.user_count,
            "revision": answer.revision,
        }
        return News(membership.group, message).change

    def _flush(self, group: str) -> None:
        self._timers.pop(group).cancel()
        change = self._gathered.pop(group)
        before = self._sending.get(group)
        task = self._loop.create_task(
            self._send(group, change, before), name=f"tell changes of {group[:50]}"
        )
        self._sending[group] = task
        task.add_done_callback(lambda _: self._sent(group, task))

    async def _send(
        self, group: str, change: Message, before: asyncio.Task[None] | None
    ) -> None:
        if before:
            await asyncio.wait([before])
        message = {"type": "groups.change", "group": group, **change}
        try:
            layer = self._manager.channel_layer
            await call_layer(layer.group_send(names.own_name(group), message))
        except StoreUnavailable:
            # The change itself stands; the lease keeps the log of outages.
            logger.debug("Members were not told of a change.", exc_info=True)

    def _sent(self, group: str, task: asyncio.Task[None]) -> None:
        if self._sending.get(group) is task:
            del self._sending[group]


class News:
    """A change as it arrived, and what of it is news to whom.

    Each member sees what happened after its own join, and never its own join.
    """

    def __init__(self, group: ConnectionGroup, message: Message) -> None:
        self._group = group
        self._message = message
        self._joined = self._read("joined")
        self._left = self._read("left")
        self._first = min(revision for revision, _ in [*self._joined, *self._left])
        self.change = self._since(0)

    def tell(self, membership: Membership) -> None:
        """Put into a member's inbox what is news to it."""
        if membership.revision < self._first:
            membership.connection.tell(self.change)
        elif membership.revision < self._message["revision"]:
            membership.connection.tell(self._since(membership.revision))

    def _read(self, kind: str) -> list[tuple[int, Connection]]:
        public = self._group.manager.connection
        return [
            (revision, public(_unpack(*member), self._group))
            for revision, *member in self._message[kind]
        ]

    def _since(self, since: int) -> GroupChange:
        return GroupChange(
            self._group,
            tuple(one for revision, one in self._joined if revision > since),
            tuple(one for revision, one in self._left if revision > since),
            self._message["count"],
            self._message["user_count"],
            self._message["revision"],
        )


def _has(entries: list[Any], id: str) -> bool:
    return any(entry[1] == id for entry in entries)


def _pack(member: Member) -> list[Any]:
    """Keep info as JSON: it may hold what a layer's serializer does not take."""
    info = json.dumps(member.info) if member.info else ""
    return [*member[:3], info, member.joined_at]


def _unpack(
    id: str, channel_name: str, user_id: str | None, info: str, joined_at: float
) -> Member:
    decoded = json.loads(info) if info else {}
    return Member(id, channel_name, user_id, decoded, joined_at)

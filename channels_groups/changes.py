"""Telling members who joined and left, gathered over CHANGE_INTERVAL."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from . import names
from .connection import Message
from .membership import LocalGroup, Membership
from .stores.base import Answer, Member

if TYPE_CHECKING:
    from .groups import ConnectionGroup
    from .manager import GroupManager

logger = logging.getLogger("channels_groups")


class Changes:
    """The changes that this node's commits made and its members are told of."""

    def __init__(self, manager: GroupManager, interval: float) -> None:
        self._manager = manager
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[str, Message] = {}
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
            if self._interval:
                self._loop.call_later(self._interval, self._flush, group, change)
            else:
                self._loop.call_soon(self._flush, group, change)
        change[kind].append([answer.revision, *member])
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
        """Give a change that arrived to the members with hooks.

        Each sees what happened after its own join, and never its own join.
        """
        group = self._manager.group(message["group"])
        joined = [(entry[0], Member(*entry[1:])) for entry in message["joined"]]
        left = [(entry[0], Member(*entry[1:])) for entry in message["left"]]
        whole = _change(group, message, joined, left)
        first = min(revision for revision, _ in [*joined, *left])
        for membership in list(local.members):
            if not membership.told or membership.revision >= message["revision"]:
                continue
            change = whole
            if membership.revision >= first:
                since = membership.revision
                news = [one for one in joined if one[0] > since]
                losses = [one for one in left if one[0] > since]
                change = _change(group, message, news, losses)
            membership.deliver(membership.connection.tell, change)

    def own_leave(self, membership: Membership, answer: Answer) -> Any:
        """Return the change that a member is told of when it has left itself."""
        message = {
            "count": answer.count,
            "user_count": answer.user_count,
            "revision": answer.revision,
        }
        left = [(answer.revision, membership.member)]
        return _change(membership.group, message, [], left)

    def _flush(self, group: str, only: Message | None = None) -> None:
        change = self._gathered.get(group)
        if change is None or (only is not None and change is not only):
            return
        del self._gathered[group]
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
            await layer.group_send(names.own_name(group), message)
        except Exception:  # A layer may raise anything; the change itself stands.
            logger.warning(
                "Members of a group were not told of a change.", exc_info=True
            )

    def _sent(self, group: str, task: asyncio.Task[None]) -> None:
        if self._sending.get(group) is task:
            del self._sending[group]


def _has(entries: list[Any], id: str) -> bool:
    return any(entry[1] == id for entry in entries)


def _change(
    group: ConnectionGroup,
    message: Message,
    joined: list[tuple[int, Member]],
    left: list[tuple[int, Member]],
) -> Any:
    from .groups import GroupChange

    public = group.manager.connection
    return GroupChange(
        group,
        tuple(public(member, group) for _, member in joined),
        tuple(public(member, group) for _, member in left),
        message["count"],
        message["user_count"],
        message["revision"],
    )

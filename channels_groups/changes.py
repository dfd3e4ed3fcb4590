"""Telling members who joined and left, gathered over CHANGE_INTERVAL."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Coroutine

from . import names
from .connection import Message
from .exceptions import StoreUnavailable
from .groups import Connection, ConnectionGroup, GroupChange
from .membership import LocalGroup, Membership
from .relay import call_layer
from .state import Segment, States, Step
from .stores.base import Answer, Member

if TYPE_CHECKING:
    from .manager import GroupManager

logger = logging.getLogger("channels_groups")

#: Seconds, beside two intervals, that a change waits for the one before it.
PATIENCE = 0.5


class Changes:
    """The changes that this node's commits made and its members are told of."""

    def __init__(self, manager: GroupManager, states: States) -> None:
        self._manager = manager
        self._states = states
        self._interval = states.interval
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[str, Message] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sending: dict[object, asyncio.Task[None]] = {}
        #: What came before its predecessor did, in order, and until when it waits.
        self._early: dict[LocalGroup, list[News]] = {}
        self._patience: dict[LocalGroup, asyncio.TimerHandle] = {}

    def add(self, kind: str, group: str, member: Member, answer: Answer) -> None:
        """Gather one change; kind is "joined", "updated" or "left".

        Within one message everybody joined before anybody left, so one who left
        and joined again begins another.
        """
        change = self._gathered.get(group)
        if kind == "joined" and change and _has(change["left"], member.id):
            self._flush(group)
            change = None
        if change is None:
            change = {"joined": [], "updated": [], "left": [], "steps": []}
            self._gathered[group] = change
            timer = self._loop.call_later(self._interval, self._flush, group)
            self._timers[group] = timer
        change[kind].append([answer.revision, *_pack(member)])
        step = [answer.previous, answer.revision, answer.count, answer.user_count]
        change["steps"].append(step)
        handle = self._states.group(group)
        if handle is not None:
            public = handle.manager.connection(member, handle)
            steps = [Step(answer.revision, kind, public)]
            segment = Segment(answer.previous, answer.revision, steps)
            self._states.take_own(group, segment)

    async def stop(self) -> None:
        """Send what is gathered and wait for the end."""
        for group in list(self._gathered):
            self._flush(group)
        while self._sending:
            await asyncio.wait(self._sending.values())
        for local in list(self._early):
            self.forget(local)

    def tell(self, local: LocalGroup, message: Message) -> None:
        """Give what arrived to the members with hooks, in the order of revisions.

        Messages of several nodes overtake each other. What comes early waits for
        what is missing, but not for ever: it may be lost.
        """
        is_followed = self._states.follows(local.name)
        if not is_followed and not local.hooked:
            return
        group = local.public or self._manager.group(local.name)
        arrived = [News(group, message, *step) for step in message["steps"]]
        if is_followed:
            self._states.take(local.name, [news.segment for news in arrived])
        if not local.hooked:
            return
        early = self._early.setdefault(local, [])
        early.extend(arrived)
        early.sort(key=lambda news: news.revision)
        if local.known:
            self._tell(local)

    def begin(self, local: LocalGroup, revision: int) -> None:
        """Tell the first member who is told what has happened since it joined."""
        local.known = revision
        if local in self._early:
            self._tell(local)

    def forget(self, local: LocalGroup) -> None:
        """Forget what waits for members who are told, of whom there are none left."""
        local.known = 0
        self._early.pop(local, None)
        if local in self._patience:
            self._patience.pop(local).cancel()

    def tell_owner(self, channel: str, group: str, member: Member) -> None:
        """Tell the node with that channel that a membership of it is its no more."""
        about = {"id": member.id, "channel_name": member.channel_name}
        message = {"type": "groups.over", "group": group, **about}
        self._start((group, member.id), self._send_to(channel, message))

    def own_leave(self, membership: Membership, answer: Answer) -> GroupChange:
        """Return the change that a member is told of when it has left itself."""
        left = (membership.public,)
        counts = answer.count, answer.user_count, answer.revision
        return GroupChange(membership.group, (), left, *counts, (), answer.previous)

    def _tell(self, local: LocalGroup, whatever: bool = False) -> None:
        """Tell what is next; ``whatever``: also what is not, for the want of it."""
        early = self._early[local]
        while early and (whatever or early[0].previous <= local.known):
            news = early.pop(0)
            local.known = max(local.known, news.revision)
            for membership in list(local.members):
                if membership.hooked:
                    membership.deliver(news.tell, membership)
        if local in self._patience:
            self._patience.pop(local).cancel()
        if early:
            self._patience[local] = self._loop.call_later(
                2 * self._interval + PATIENCE, self._tell, local, True
            )
        else:
            del self._early[local]

    def _flush(self, group: str) -> None:
        self._timers.pop(group).cancel()
        change = self._gathered.pop(group)
        change["steps"] = _join_steps(change["steps"])
        self._start(group, self._send(group, change, self._sending.get(group)))

    def _start(self, key: object, sending: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(sending, name=f"tell changes of {key!s:.50}")
        self._sending[key] = task
        task.add_done_callback(lambda _: self._sent(key, task))

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

    async def _send_to(self, channel: str, message: Message) -> None:
        try:
            await call_layer(self._manager.channel_layer.send(channel, message))
        except StoreUnavailable:
            logger.debug("A node was not told of a resumed member.", exc_info=True)

    def _sent(self, key: object, task: asyncio.Task[None]) -> None:
        if self._sending.get(key) is task:
            del self._sending[key]


class News:
    """What one or several changes without a gap between them are to whom.

    Each member sees what happened after its own join, and never its own join.
    """

    def __init__(
        self,
        group: ConnectionGroup,
        message: Message,
        previous: int,
        revision: int,
        count: int,
        user_count: int,
    ) -> None:
        self.previous = previous
        self.revision = revision
        self._group = group
        self._counts = count, user_count
        self._joined = self._read(message["joined"])
        self._updated = self._read(message["updated"])
        self._left = self._read(message["left"])
        self._change = self._since(previous)

    def tell(self, membership: Membership) -> None:
        """Put into a member's inbox what is news to it."""
        if membership.revision <= self.previous:
            membership.connection.tell(self._change)
        elif membership.revision < self.revision:
            membership.connection.tell(self._since(membership.revision))

    @property
    def segment(self) -> Segment:
        """Return it one by one, in the order of revisions."""
        kinds = {"joined": self._joined, "updated": self._updated, "left": self._left}
        steps = [
            Step(revision, kind, one)
            for kind, told in kinds.items()
            for revision, one in told
        ]
        steps.sort(key=lambda step: step.revision)
        return Segment(self.previous, self.revision, steps)

    def _read(self, entries: list[Any]) -> list[tuple[int, Connection]]:
        public = self._group.manager.connection
        return [
            (revision, public(_unpack(*member), self._group))
            for revision, *member in entries
            if self.previous < revision <= self.revision
        ]

    def _since(self, since: int) -> GroupChange:
        joined, updated, left = (
            tuple(one for revision, one in told if revision > since)
            for told in (self._joined, self._updated, self._left)
        )
        latest = {connection.id: connection for connection in updated}
        updated = tuple(latest.values())
        counts = *self._counts, self.revision
        return GroupChange(self._group, joined, left, *counts, updated, since)


def _join_steps(steps: list[list[int]]) -> list[list[int]]:
    """Return the changes in order, those without a gap between them as one."""
    joined: list[list[int]] = []
    for step in sorted(steps):
        if joined and joined[-1][1] == step[0]:
            joined[-1][1:] = step[1:]
        else:
            joined.append(step)
    return joined


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

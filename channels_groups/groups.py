"""Groups and their members: what users hold in their hands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Hashable,
    Iterable,
    Iterator,
    Union,
)

from asgiref.sync import async_to_sync

from . import names
from .connection import LocalConnection, Message
from .exceptions import ConnectionClosed, StoreUnavailable
from .facts import check_info
from .messages import check_event, close_message, to_payload
from .relay import BAD_MESSAGE, call_layer
from .stores.base import Member, StoreRebuilding

if TYPE_CHECKING:
    from .manager import GroupManager


class Handle:
    """Equal to another of its class that stands for the same."""

    @property
    def _key(self) -> Hashable:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle) or type(self) is not type(other):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class Recipients(Handle):
    """Connections that can be written to, all at once."""

    async def asend(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        *,
        exclude: Iterable[Connection | str] = (),
    ) -> None:
        """Send a WebSocket frame to every connection's client.

        Give one of text_data and bytes_data, else ValueError. ``exclude`` has
        Connections or ids. Frames of one sender keep their order; what the channel
        layer drops (channels_redis core beyond ``capacity``) is lost.
        """
        payload = to_payload(text_data, bytes_data)
        await self._send_all({"type": "groups.send", **payload}, to_ids(exclude))

    def send(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        *,
        exclude: Iterable[Connection | str] = (),
    ) -> None:
        async_to_sync(self.asend)(text_data, bytes_data, exclude=exclude)

    async def asend_json(
        self, content: Any, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        """Send JSON to every connection's client. It is encoded once."""
        await self.asend(json.dumps(content), exclude=exclude)

    def send_json(
        self, content: Any, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        async_to_sync(self.asend_json)(content, exclude=exclude)

    async def asend_event(
        self, message: Message, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        """Send a Channels message to every consumer's handler for its type."""
        check_event(message)
        await self._send_event(message, to_ids(exclude))

    def send_event(
        self, message: Message, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        async_to_sync(self.asend_event)(message, exclude=exclude)

    async def aclose_all(
        self, code: int | None = None, reason: str | None = None
    ) -> None:
        """Close every connection.

        ``code`` is 1000 or from 3000 to 4999, else ValueError; ``reason`` has up
        to 123 bytes, and daphne drops it. Returns when all processes are asked.
        """
        await self._send_all(close_message("groups.close", code, reason), [])

    def close_all(self, code: int | None = None, reason: str | None = None) -> None:
        async_to_sync(self.aclose_all)(code, reason)

    async def _send_all(self, message: Message, exclude: list[str]) -> None:
        """Send each connection, but for some ids, a message of this package."""
        raise NotImplementedError

    async def _send_event(self, message: Message, exclude: list[str]) -> None:
        """Send each connection, but for some ids, what its consumer handles."""
        raise NotImplementedError


class ConnectionGroup(Recipients):
    """A group of connections, by name.

    A lazy handle: making one does no I/O and does not make the group, which comes
    into being with its first member and vanishes with its last. Two handles of one
    alias and name are equal. Everything that asks the store or sends raises
    StoreUnavailable within two seconds if there is no answer.
    """

    def __init__(self, name: str, manager: GroupManager) -> None:
        #: As it was given, whatever the channel layer calls it.
        self.name = names.check_name(name)
        #: The group manager that it came from.
        self.manager = manager

    def __repr__(self) -> str:
        return f"<ConnectionGroup {self.name!r} of {self.manager.alias!r}>"

    # Who is in it

    async def acount(self) -> int:
        """Return the number of connections in the whole cluster, in constant time."""
        return await self.manager.store.count(self.name)

    def count(self) -> int:
        return async_to_sync(self.acount)()

    async def auser_count(self) -> int:
        """Return the number of distinct user ids."""
        return await self.manager.store.user_count(self.name)

    def user_count(self) -> int:
        return async_to_sync(self.auser_count)()

    async def ausers(self) -> set[str]:
        """Return the distinct user ids."""
        return await self.manager.store.users(self.name)

    def users(self) -> set[str]:
        return async_to_sync(self.ausers)()

    async def aexists(self) -> bool:
        """Return whether the group has a member."""
        return await self.acount() > 0

    def exists(self) -> bool:
        return async_to_sync(self.aexists)()

    async def aget(self, id: str) -> Connection | None:
        """Return the member with that connection id, or None."""
        if not names.is_encodable(id):
            return None
        member = await self.manager.store.member(self.name, id)
        return None if member is None else self.manager.connection(member, self)

    def get(self, id: str) -> Connection | None:
        return async_to_sync(self.aget)(id)

    async def arevision(self) -> int:
        """Return the revision of the last change, or 0 if no member is told of changes.

        It is that of a GroupChange: who has seen that one has seen everything.
        """
        store = self.manager.store
        try:
            [summary] = await store.summaries(store.shard(self.name), [self.name])
        except StoreRebuilding as error:
            raise StoreUnavailable(f"{store} is being written again.") from error
        return summary.revision

    def revision(self) -> int:
        return async_to_sync(self.arevision)()

    async def __aiter__(self) -> AsyncIterator[Connection]:
        """Iterate over the members, a page at a time.

        Who is a member throughout is listed. A very large group that shrinks
        meanwhile may have a member listed twice.
        """
        cursor = None
        while True:
            members, cursor = await self.manager.store.members(self.name, cursor)
            for member in members:
                yield self.manager.connection(member, self)
            if cursor is None:
                return

    def __iter__(self) -> Iterator[Connection]:
        page = async_to_sync(self.manager.store.members)
        cursor = None
        while True:
            members, cursor = page(self.name, cursor)
            for member in members:
                yield self.manager.connection(member, self)
            if cursor is None:
                return

    # Below

    @property
    def _key(self) -> Hashable:
        return self.manager.alias, self.name

    async def _send_all(self, message: Message, exclude: list[str]) -> None:
        name = names.own_name(self.name)
        about = {"group": self.name, "exclude": exclude}
        call = self.manager.channel_layer.group_send(name, {**message, **about})
        await call_layer(call, raises=BAD_MESSAGE)

    async def _send_event(self, message: Message, exclude: list[str]) -> None:
        await self._send_all({"type": "groups.event", "message": message}, exclude)


class Connection(Handle):
    """One connection, in this or another process.

    Two of one alias and id are equal, whatever group they were found in.
    """

    def __init__(
        self,
        member: Member,
        group: ConnectionGroup | None,
        manager: GroupManager,
        local: LocalConnection | None,
    ) -> None:
        #: Short and opaque, stable for the connection's life.
        self.id = member.id
        #: The consumer's channel.
        self.channel_name = member.channel_name
        #: What get_group_user_id() returned: a str or None.
        self.user_id = member.user_id
        #: What get_group_info() returned.
        self.info = member.info
        #: The group that it was found in.
        self.group = group
        self._joined_at = member.joined_at
        self._manager = manager
        self._local = local

    def __repr__(self) -> str:
        return f"<Connection {self.id} of {self.user_id!r}>"

    @property
    def _key(self) -> Hashable:
        return self._manager.alias, self.id

    @property
    def joined_at(self) -> datetime:
        """When it joined the group that it was found in; aware, in UTC."""
        return datetime.fromtimestamp(self._joined_at, timezone.utc)

    @property
    def scope(self) -> Message | None:
        """The ASGI scope in the process that owns the connection, else None."""
        return self._local.scope if self._local else None

    async def asend(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Send a WebSocket frame to the client. Give one of the two.

        A connection that is gone takes it without an error.
        """
        payload = to_payload(text_data, bytes_data)
        await self._asend({"type": "groups.send", **payload})

    def send(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        async_to_sync(self.asend)(text_data, bytes_data)

    async def asend_json(self, content: Any) -> None:
        """Send JSON to the client."""
        await self.asend(json.dumps(content))

    def send_json(self, content: Any) -> None:
        async_to_sync(self.asend_json)(content)

    async def asend_event(self, message: Message) -> None:
        """Send a Channels message to the consumer's handler for ``message["type"]``."""
        check_event(message)
        await self._asend(message)

    def send_event(self, message: Message) -> None:
        async_to_sync(self.asend_event)(message)

    async def aclose(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection; code and reason as in ConnectionGroup.aclose_all()."""
        await self._asend(close_message("groups.close", code, reason))

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        async_to_sync(self.aclose)(code, reason)

    async def aset_group(self, name: str | None) -> None:
        """Ask the connection's process to call set_group(), and return when asked.

        The group manager decides there; a refusal is logged there. Raise
        ConnectionClosed if the connection was of this process and is gone.
        """
        if name is not None:
            names.check_name(name)
        if self._local and self._local.ended:
            raise ConnectionClosed
        await self._asend({"type": "groups.set_group", "name": name})

    def set_group(self, name: str | None) -> None:
        async_to_sync(self.aset_group)(name)

    async def aupdate_info(self, info: dict[str, Any]) -> None:
        """Ask the connection's process to call update_info(), and return when asked.

        TypeError or ValueError for bad info; what is wrong only together with the
        rest is logged there. ConnectionClosed as in aset_group().
        """
        info = check_info(info, "update_info()")
        if self._local and self._local.ended:
            raise ConnectionClosed
        await self._asend({"type": "groups.update_info", "info": info})

    def update_info(self, info: dict[str, Any]) -> None:
        async_to_sync(self.aupdate_info)(info)

    async def _asend(self, message: Message) -> None:
        layer = self._manager.channel_layer
        call = layer.send(self.channel_name, message)
        await call_layer(call, raises=BAD_MESSAGE)


@dataclass(frozen=True)
class GroupChange:
    """What happened to a group, as one of its members is told.

    It has what happened after the member's own join, itself left out of ``joined``.
    """

    group: ConnectionGroup
    #: In their order. All of them joined before any of ``left`` left.
    joined: tuple[Connection, ...]
    #: In their order. Who joined and left again is in both.
    left: tuple[Connection, ...]
    #: Connections in the group after it.
    count: int
    #: Distinct users in the group after it.
    user_count: int
    #: Of the last change in it; grows for one group for ever.
    revision: int
    #: Each once, as it is after the change, oneself too.
    updated: tuple[Connection, ...] = ()
    #: The revision of what this member was told before, or joined with. If it is
    #: another one, something was not told: see ``ConnectionGroup.arevision()``.
    previous: int = 0

    def merge(self, later: GroupChange) -> GroupChange | None:
        """Return both changes in one, or None if they are not to be told as one.

        That is where something is missing between them, or the order would be lost.
        """
        if later.group != self.group or later.previous != self.revision:
            return None
        if not set(self.left).isdisjoint(later.joined):
            return None
        before = tuple(one for one in self.updated if one not in later.updated)
        return GroupChange(
            self.group,
            self.joined + later.joined,
            self.left + later.left,
            later.count,
            later.user_count,
            later.revision,
            before + later.updated,
            self.previous,
        )


def to_ids(connections: Iterable[Union[Connection, str]]) -> list[str]:
    if isinstance(connections, (str, Connection)):
        raise TypeError("exclude takes several Connections or ids, not one.")
    return [one.id if isinstance(one, Connection) else one for one in connections]

"""Users and their connections, in whatever groups they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, AsyncIterator, Iterable, Iterator

from asgiref.sync import async_to_sync

from .connection import Message
from .facts import check_user_id
from .groups import (
    Connection,
    ConnectionGroup,
    check_event,
    close_message,
    to_ids,
    to_payload,
)
from .relay import gather_all

if TYPE_CHECKING:
    from .manager import GroupManager


class GroupUser:
    """A user id, and the connections that are in groups under it.

    A lazy handle: making one does no I/O, and there need not be such a user. A
    connection that is in no group is not found. Nobody else's connections are read,
    however large the groups are. Who lingers (GRACE) counts as it does in groups.
    Everything raises StoreUnavailable as a ConnectionGroup does.
    """

    def __init__(self, user_id: str, manager: GroupManager) -> None:
        if user_id is None:
            raise TypeError("A user id must be a str, not NoneType.")
        self.user_id: str = check_user_id(user_id) or ""
        self.manager = manager

    def __repr__(self) -> str:
        return f"<GroupUser {self.user_id!r} of {self.manager.alias!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupUser):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str]:
        return self.manager.alias, self.user_id

    # Where it is

    async def aconnected(self) -> bool:
        """Return whether the user is in a group, anywhere in the cluster."""
        async for _ in self:
            return True
        return False

    def connected(self) -> bool:
        return async_to_sync(self.aconnected)()

    async def aconnection_count(self) -> int:
        """Return the number of connections; one in several groups counts once."""
        return len([one async for one in self])

    def connection_count(self) -> int:
        return async_to_sync(self.aconnection_count)()

    async def agroups(self) -> AsyncIterator[ConnectionGroup]:
        """Iterate over the groups that the user is in, each once."""
        seen = set()
        async for connection in self._memberships():
            group = connection.group
            if group is not None and group.name not in seen:
                seen.add(group.name)
                yield group

    def groups(self) -> Iterator[ConnectionGroup]:
        return iter(async_to_sync(_to_list)(self.agroups()))

    async def __aiter__(self) -> AsyncIterator[Connection]:
        """Iterate over the connections, each once, as found in one of its groups."""
        seen = set()
        async for connection in self._memberships():
            if connection.channel_name not in seen:
                seen.add(connection.channel_name)
                yield connection

    def __iter__(self) -> Iterator[Connection]:
        return iter(async_to_sync(_to_list)(self.__aiter__()))

    # Writing to all of it

    async def asend(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        *,
        exclude: Iterable[Connection | str] = (),
    ) -> None:
        """Send a WebSocket frame to each connection's client. Give one of the two.

        ``exclude``: Connections, or their ids, that do not get it.
        """
        to_payload(text_data, bytes_data)
        for_each = await self._others(exclude)
        await gather_all(one.asend(text_data, bytes_data) for one in for_each)

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
        """Send JSON to each connection's client. It is encoded once."""
        await self.asend(json.dumps(content), exclude=exclude)

    def send_json(
        self, content: Any, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        async_to_sync(self.asend_json)(content, exclude=exclude)

    async def asend_event(
        self, message: Message, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        """Send a Channels message to each consumer's handler for its type."""
        check_event(message)
        for_each = await self._others(exclude)
        await gather_all(one.asend_event(message) for one in for_each)

    def send_event(
        self, message: Message, *, exclude: Iterable[Connection | str] = ()
    ) -> None:
        async_to_sync(self.asend_event)(message, exclude=exclude)

    async def aclose_all(
        self, code: int | None = None, reason: str | None = None
    ) -> None:
        """Close each connection, for instance when the user logs out.

        Code and reason are as in ConnectionGroup.aclose_all().
        """
        close_message("groups.close", code, reason)
        await gather_all([one.aclose(code, reason) async for one in self])

    def close_all(self, code: int | None = None, reason: str | None = None) -> None:
        async_to_sync(self.aclose_all)(code, reason)

    # Below

    async def _memberships(self) -> AsyncIterator[Connection]:
        """Iterate over the memberships; a connection may be in several groups."""
        manager, cursor = self.manager, None
        while True:
            page, cursor = await manager.store.user_members(self.user_id, cursor)
            for name, member in page:
                yield manager.connection(member, manager.group(name))
            if cursor is None:
                return

    async def _others(self, exclude: Iterable[Connection | str]) -> list[Connection]:
        """Return the connections but some, which may have another id in each group."""
        ids = set(to_ids(exclude))
        found = [connection async for connection in self._memberships()]
        excluded = {one.channel_name for one in found if one.id in ids}
        others = {one.channel_name: one for one in found}
        return [one for name, one in others.items() if name not in excluded]


async def _to_list(found: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in found]

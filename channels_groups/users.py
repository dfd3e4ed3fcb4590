"""Users and their connections, in whatever groups they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, AsyncIterator, Hashable, Iterator

from asgiref.sync import async_to_sync

from .connection import Message
from .facts import check_user_id
from .groups import Connection, ConnectionGroup, Recipients
from .relay import BAD_MESSAGE, call_layer, gather_all

if TYPE_CHECKING:
    from .manager import GroupManager


class GroupUser(Recipients):
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

    # Below

    @property
    def _key(self) -> Hashable:
        return self.manager.alias, self.user_id

    async def _memberships(self) -> AsyncIterator[Connection]:
        """Iterate over the memberships; a connection may be in several groups."""
        manager, cursor = self.manager, None
        while True:
            page, cursor = await manager.store.user_members(self.user_id, cursor)
            for name, member in page:
                yield manager.connection(member, manager.group(name))
            if cursor is None:
                return

    async def _send_all(self, message: Message, exclude: list[str]) -> None:
        """Send to each channel once; a connection may have an id in each group."""
        found = [connection async for connection in self._memberships()]
        excluded = {one.channel_name for one in found if one.id in exclude}
        channels = dict.fromkeys(one.channel_name for one in found)
        send = self.manager.channel_layer.send
        await gather_all(
            call_layer(send(channel, message), raises=BAD_MESSAGE)
            for channel in channels
            if channel not in excluded
        )

    _send_event = _send_all


async def _to_list(found: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in found]

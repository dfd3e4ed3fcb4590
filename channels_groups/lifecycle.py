"""A consumer's life in groups: what the async and the sync mixin share."""

from __future__ import annotations

from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.db import database_sync_to_async
from django.core.exceptions import ImproperlyConfigured

from . import names
from .connection import Message
from .exceptions import GroupRejected
from .facts import check_info, check_limit, check_user_id
from .groups import Connection, ConnectionGroup
from .manager import GroupManager, get_group_manager
from .node import Node
from .stores.base import Member


class GroupLife:
    """Joins groups by call, and leaves them all when the connection ends."""

    #: None: the manager of the consumer's channel_layer_alias; or a GroupManager().
    group_manager: GroupManager | None = None

    #: Where GRACE is set, other seconds than those; 0 for clients nobody waits for.
    group_grace: float | None = None

    channel_layer_alias = DEFAULT_CHANNEL_LAYER
    channel_layer: Any
    _shows_state = False
    scope: Message

    async def __call__(self, scope: Message, receive: Any, send: Any) -> Any:
        self._groups: dict[str, ConnectionGroup] = {}
        self._check_alias("group_manager", self._manager)
        node, connection = Node.connect(self._manager, self, scope, send)
        self._node, self._connection = node, connection
        try:
            return await super().__call__(  # type: ignore[misc]
                scope, receive, connection.send
            )
        finally:
            try:
                await node.disconnect(connection)
                await connection.say_goodbye()
            finally:
                connection.break_off_goodbye()

    @property
    def channel_receive(self) -> Any:
        return self._connection.receive

    @channel_receive.setter
    def channel_receive(self, receive: Any) -> None:
        """Read the inbox, which gets the channel's messages, in the channel's place.

        ``AsyncConsumer.__call__`` of channels 4.3 sets it and then awaits it.
        """
        beside = self.channel_layer is self._node.layer
        self._connection.listen(self.channel_layer, beside)

    @property
    def group(self) -> ConnectionGroup | None:
        """The group of set_group(), or None."""
        current = self._connection.current
        return None if current is None else self._groups[current]

    @property
    def group_name(self) -> str | None:
        """The name of the group of set_group(), or None."""
        return self._connection.current

    @property
    def joined_groups(self) -> frozenset[str]:
        """The names of all groups that set_group() and join_group() have entered."""
        return frozenset(self._groups)

    @property
    def connection(self) -> Connection:
        """This connection, as other members see it."""
        local = self._connection
        membership = local.memberships.get(local.current or "")
        if membership is not None:
            return membership.public
        member = Member(local.id, local.channel_name, None, {}, local.connected_at)
        return self._manager.connection(member, self.group, local)

    @property
    def _manager(self) -> GroupManager:
        return self.group_manager or get_group_manager(self.channel_layer_alias)

    def _check_alias(self, what: str, manager: GroupManager) -> None:
        """Refuse what is of a layer from which this consumer gets no message."""
        if manager.alias != self.channel_layer_alias:
            raise ImproperlyConfigured(
                f"The {what} of {type(self).__name__} is of {manager.alias!r}, its "
                f"channel_layer_alias is {self.channel_layer_alias!r}."
            )

    @classmethod
    def _has_hooks(cls, mixin: type) -> bool:
        hooks = ("group_join", "group_leave", "group_update", "group_changed")
        return any(getattr(cls, name) is not getattr(mixin, name) for name in hooks)

    async def _set_group(
        self, name: str | None, user_id: Any, info: Any, told: bool
    ) -> ConnectionGroup | None:
        local = self._connection
        self._node.check_free(local)
        async with local.lock:
            former = self.group
            if former is not None:
                self._node.check_may_wait(former)
            if name is None:
                group = None
            elif former is not None and former.name == name:
                return former
            else:
                group = await self._enter(name, user_id, info, told)
            local.current = None if group is None else group.name
            if former is not None and former != group:
                await self._leave(former)
            return group

    async def _join_group(
        self, name: str, user_id: Any, info: Any, told: bool
    ) -> ConnectionGroup:
        self._node.check_free(self._connection)
        async with self._connection.lock:
            return await self._enter(name, user_id, info, told)

    async def _leave_group(self, name: str) -> None:
        local = self._connection
        self._node.check_free(local)
        async with local.lock:
            group = self._groups.get(names.check_name(name))
            if group is not None:
                self._node.check_may_wait(group)
                if local.current == name:
                    local.current = None
                await self._leave(group)

    async def _enter(
        self, name: str, user_id: Any, info: Any, told: bool
    ) -> ConnectionGroup:
        """Ask the manager and join; do nothing for a group that it is in."""
        local, manager = self._connection, self._manager
        names.check_name(name)
        local.check_open()
        user_id, info = check_user_id(user_id), check_info(info)
        if local.updates:
            info = check_info({**info, **local.updates})
        member = Member(local.id, local.channel_name, user_id, info, local.connected_at)
        asking = manager.connection(member, self.group, local)
        group = await manager.aget_group(name, asking)
        if group is None:
            raise GroupRejected(f"The group manager rejected group {name!r}.")
        self._check_alias("group", group.manager)
        if group.name in self._groups:
            return self._groups[group.name]
        limit = await _max_members(manager, group)
        shown = self._shows_state
        await self._node.join(local, group, user_id, info, limit, told, shown)
        self._groups[group.name] = group
        return group

    async def _update_info(self, info: dict[str, Any]) -> None:
        local = self._connection
        info = check_info(info, "update_info()")
        self._node.check_free(local)
        async with local.lock:
            for group in self._groups.values():
                self._node.check_may_wait(group)
            await self._node.update(local, info)

    async def _leave(self, group: ConnectionGroup) -> None:
        del self._groups[group.name]
        await self._node.leave(self._connection, group, "left")
        if self._shows_state:
            self._connection.put({"type": "groups.left", "group": group.name})

    def _default_user_id(self) -> str | None:
        user = self.scope.get("user")
        if user is None or not getattr(user, "is_authenticated", False):
            return None
        return str(user.pk)


async def _max_members(manager: GroupManager, group: ConnectionGroup) -> int | None:
    """Ask the manager, in a thread if the answer is the user's code."""
    if type(manager).max_members is GroupManager.max_members:
        return manager.max_members(group)
    return check_limit(await database_sync_to_async(manager.max_members)(group))

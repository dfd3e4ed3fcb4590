"""The group manager: policy, and the way to every group."""

from __future__ import annotations

from typing import Any, AsyncIterator, Iterator

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from . import conf, names
from .connection import LocalConnection, Message
from .groups import Connection, ConnectionGroup
from .messages import close_message
from .meters import METERS
from .node import find_nodes
from .relay import BAD_MESSAGE, call_layer, gather_all
from .stores import make_store
from .stores.base import BaseStore, Member
from .users import GroupUser

_managers: dict[str, GroupManager] = {}
_stores: dict[str, BaseStore] = {}


class GroupManager:
    """Who may be in which group of one channel layer.

    Override get_group() or aget_group() to admit, reject or redirect, and
    max_members() to limit. Name the class in CHANNELS_GROUPS[alias]["MANAGER"], or
    set an instance as ``group_manager`` on a consumer class.
    """

    def __init__(self, alias: str = "default") -> None:
        #: Of the channel layer.
        self.alias = alias

    @property
    def settings(self) -> conf.GroupSettings:
        return conf.get_settings(self.alias)

    @property
    def channel_layer(self) -> Any:
        layer = get_channel_layer(self.alias)
        if layer is None:
            raise ImproperlyConfigured(
                f"CHANNEL_LAYERS has no {self.alias!r}: channels_groups needs it."
            )
        return layer

    @property
    def store(self) -> BaseStore:
        store = _stores.get(self.alias)
        if store is None:
            store = _stores[self.alias] = make_store(self.alias, self.channel_layer)
            for meter in METERS:
                meter.store_made(self.alias, store)
        return store

    # Policy

    async def aget_group(
        self, name: str, connection: Connection
    ) -> ConnectionGroup | None:
        """Return the group that a connection enters when it asks for ``name``.

        None rejects it (GroupRejected); another group than asked for redirects it.
        It calls get_group() in a thread if that is overridden.
        """
        if type(self).get_group is GroupManager.get_group:
            return self.group(name)
        group: ConnectionGroup | None = await database_sync_to_async(self.get_group)(
            name, connection
        )
        return group

    def get_group(self, name: str, connection: Connection) -> ConnectionGroup | None:
        """Be aget_group() for a manager whose policy is sync."""
        return self.group(name)

    def max_members(self, group: ConnectionGroup) -> int | None:
        """Return how many members the group may have, or None.

        Decided atomically with the join, so no race makes one too many. Anything else
        is a TypeError of set_group().
        """
        return self.settings.max_members

    def may_count(self, group: ConnectionGroup, scope: Message) -> bool:
        """Return whether a page may go on watching the count that a template showed.

        ``scope`` is that of its socket, with a user if AuthMiddlewareStack is around
        it. By default it may: it can only ask for what was rendered for somebody.
        """
        return True

    # Groups

    def group(self, name: str) -> ConnectionGroup:
        """Return a handle for the group. TypeError or ValueError for a bad name."""
        return ConnectionGroup(name, self)

    def user(self, user_id: str) -> GroupUser:
        """Return a handle for a user. TypeError or ValueError for a bad user id."""
        return GroupUser(user_id, self)

    async def agroups(self, prefix: str = "") -> AsyncIterator[ConnectionGroup]:
        """Iterate over the groups, a page at a time.

        Without a prefix those with most members come first. A group that changes
        meanwhile may be missed or listed twice.
        """
        if not names.is_encodable(prefix):
            return  # As no group is named.
        cursor = None
        while True:
            groups, cursor = await self.store.groups(prefix, cursor)
            for name, _ in groups:
                yield self.group(name)
            if cursor is None:
                return

    def groups(self, prefix: str = "") -> Iterator[ConnectionGroup]:
        if not names.is_encodable(prefix):
            return
        page = async_to_sync(self.store.groups)
        cursor = None
        while True:
            groups, cursor = page(prefix, cursor)
            for name, _ in groups:
                yield self.group(name)
            if cursor is None:
                return

    async def agroup_count(self) -> int:
        """Return the number of groups."""
        return await self.store.group_count()

    def group_count(self) -> int:
        return async_to_sync(self.agroup_count)()

    async def amembership_count(self) -> int:
        """Return the number of members of all groups together."""
        return await self.store.membership_count()

    def membership_count(self) -> int:
        return async_to_sync(self.amembership_count)()

    async def aclose_all(
        self, code: int | None = None, reason: str | None = None, local: bool = False
    ) -> None:
        """Close every connection of the library's consumers, in a group or not.

        ``local``: only those of this process. Code and reason as
        in ConnectionGroup.aclose_all().
        """
        message = close_message("groups.close_all", code, reason)
        if local:
            for node in find_nodes(self.alias):
                node.loop.call_soon_threadsafe(node.close_all, code, reason)
            return
        send = self.channel_layer.send
        await gather_all(
            call_layer(send(channel, message), raises=BAD_MESSAGE)
            for channel in await self.store.channels()
        )

    def close_all(
        self, code: int | None = None, reason: str | None = None, local: bool = False
    ) -> None:
        async_to_sync(self.aclose_all)(code, reason, local)

    # For the library

    def connection(
        self,
        member: Member,
        group: ConnectionGroup | None,
        local: LocalConnection | None = None,
    ) -> Connection:
        """Return the public face of a member."""
        if local is None:
            name = group.name if group else ""
            for node in find_nodes(self.alias):
                local = local or node.find(member, name)
        return Connection(member, group, self, local)


def get_group_manager(alias: str = "default") -> GroupManager:
    """Return the manager of a channel layer alias, always the same one."""
    manager = _managers.get(alias)
    if manager is None:
        path = conf.get_settings(alias).manager
        manager = _managers[alias] = conf.load(alias, "MANAGER", path)(alias)
    return manager


def get_group(name: str, alias: str = "default") -> ConnectionGroup:
    """Return a handle for a group."""
    return get_group_manager(alias).group(name)


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting in ("CHANNELS_GROUPS", "CHANNEL_LAYERS"):
        _managers.clear()
        _stores.clear()


setting_changed.connect(_reset)

"""The mixins: put one before the class of your consumer.

``class Chat(AsyncGroupConsumerMixin, AsyncWebsocketConsumer)`` for an async
consumer, ``class Chat(GroupConsumerMixin, WebsocketConsumer)`` for a sync one.
"""

from __future__ import annotations

import inspect
import json
import logging
from typing import Any

from asgiref.sync import async_to_sync

from .connection import LocalConnection, Message
from .exceptions import GroupError
from .groups import Connection, ConnectionGroup, GroupChange
from .lifecycle import GroupLife
from .state import News, Viewer

logger = logging.getLogger("channels_groups")


class AsyncGroupConsumerMixin(GroupLife):
    """Give an async consumer groups that know who is in them.

    The methods that enter a group raise GroupRejected, GroupFull, StoreUnavailable
    (within two seconds of asking the store) or ConnectionClosed, and TypeError or
    ValueError for a bad name, user id or info; the connection then stays where it
    is.
    """

    async def set_group(self, name: str | None) -> ConnectionGroup | None:
        """Enter a group and leave the one that set_group() entered before.

        Return the group; None leaves without entering. In the store means it
        receives: every message that is sent after this has returned arrives.
        """
        if name is None:
            return await self._set_group(None, None, {}, False)
        return await self._set_group(name, *await self._facts())

    async def join_group(self, name: str) -> ConnectionGroup:
        """Enter a further group beside set_group()'s."""
        return await self._join_group(name, *await self._facts())

    async def leave_group(self, name: str) -> None:
        """Leave a group; the group of set_group() as set_group(None) does."""
        await self._leave_group(name)

    async def update_info(self, info: dict[str, Any]) -> None:
        """Change what the other members see, in all groups of this connection.

        The keys are merged into the info, as by dict.update(), and into that of the
        groups entered later. Members are told of it as updated, not as a leave and a
        join; if nothing changes, nobody is. Raise ConnectionClosed, and TypeError or
        ValueError as get_group_info() is checked; then all stays as it was. While the
        store is away it is remembered and made up for, as a leave is.
        """
        await self._update_info(info)

    def get_group_user_id(self) -> Any:
        """Return who this is, a str or None; may be overridden as async.

        By default the primary key of an authenticated ``scope["user"]``.
        """
        return self._default_user_id()

    def get_group_info(self) -> Any:
        """Return a dict that the other members see; may be overridden as async.

        It has to be JSON-serialisable, and no more than 8 KiB of JSON.
        """
        return {}

    async def group_join(self, group: ConnectionGroup, connection: Connection) -> None:
        """Called when another member has joined a group of mine."""

    async def group_leave(self, group: ConnectionGroup, connection: Connection) -> None:
        """Called when a member has left; for me too, while I am still open."""

    async def group_update(
        self, group: ConnectionGroup, connection: Connection
    ) -> None:
        """Called when a member's info has changed, mine too."""

    async def group_changed(self, change: GroupChange) -> None:
        """Called with all that CHANGE_INTERVAL has gathered; calls the other three."""
        for connection in change.joined:
            await self.group_join(change.group, connection)
        for connection in change.updated:
            await self.group_update(change.group, connection)
        for connection in change.left:
            await self.group_leave(change.group, connection)

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message, as Channels does.

        Channels takes a turn in a thread before each, to close old database
        connections there. It is one thread for all consumers, and a change comes to
        all members at once: for changes, and states, it is done once a second.
        """
        kind = message["type"]
        if kind == "groups.change":
            await self._node.old_connections.close()
            await self.groups_change(message)
        elif kind == "groups.state" and self._shows_state:
            await self._node.old_connections.close()
            await self.groups_state(message)  # type: ignore[attr-defined]
        else:
            await super().dispatch(message)  # type: ignore[misc]

    async def groups_change(self, message: Message) -> None:
        await self.group_changed(message["change"])

    async def groups_set_group(self, message: Message) -> None:
        try:
            await self.set_group(message["name"])
        except GroupError as error:
            _log_refusal(self._connection, message, error)

    async def groups_update_info(self, message: Message) -> None:
        try:
            await self.update_info(message["info"])
        except (GroupError, ValueError) as error:
            _log_no_update(self._connection, error)

    async def groups_frame(self, message: Message) -> None:
        """Send what a group sends, for a consumer that has no WebSocket."""
        body = message.get("bytes")
        if body is None:
            body = message["text"].encode()
        await self.send_body(body, more_body=True)  # type: ignore[attr-defined]

    async def _facts(self) -> tuple[Any, Any, bool]:
        user_id, info = self.get_group_user_id(), self.get_group_info()
        if hasattr(user_id, "__await__"):
            user_id = await user_id
        if hasattr(info, "__await__"):
            info = await info
        return user_id, info, self._has_hooks(AsyncGroupConsumerMixin)


class GroupConsumerMixin(GroupLife):
    """Give a sync consumer groups that know who is in them.

    See AsyncGroupConsumerMixin: the methods are the same, and what they raise.
    """

    def set_group(self, name: str | None) -> ConnectionGroup | None:
        """Enter a group and leave the one that set_group() entered before."""
        if name is None:
            return async_to_sync(self._set_group)(None, None, {}, False)
        return async_to_sync(self._set_group)(name, *self._facts())

    def join_group(self, name: str) -> ConnectionGroup:
        """Enter a further group beside set_group()'s."""
        return async_to_sync(self._join_group)(name, *self._facts())

    def leave_group(self, name: str) -> None:
        """Leave a group; the group of set_group() as set_group(None) does."""
        async_to_sync(self._leave_group)(name)

    def update_info(self, info: dict[str, Any]) -> None:
        """Change what the other members see, in all groups of this connection."""
        async_to_sync(self._update_info)(info)

    def get_group_user_id(self) -> str | None:
        """Return who this is: the primary key of an authenticated ``scope["user"]``."""
        return self._default_user_id()

    def get_group_info(self) -> dict[str, Any]:
        """Return a dict that the other members see, at most 8 KiB of JSON."""
        return {}

    def group_join(self, group: ConnectionGroup, connection: Connection) -> None:
        """Called when another member has joined a group of mine."""

    def group_leave(self, group: ConnectionGroup, connection: Connection) -> None:
        """Called when a member has left; for me too, while I am still open."""

    def group_update(self, group: ConnectionGroup, connection: Connection) -> None:
        """Called when a member's info has changed, mine too."""

    def group_changed(self, change: GroupChange) -> None:
        """Called with all that CHANGE_INTERVAL has gathered; calls the other three."""
        for connection in change.joined:
            self.group_join(change.group, connection)
        for connection in change.updated:
            self.group_update(change.group, connection)
        for connection in change.left:
            self.group_leave(change.group, connection)

    def groups_change(self, message: Message) -> None:
        self.group_changed(message["change"])

    def groups_set_group(self, message: Message) -> None:
        try:
            self.set_group(message["name"])
        except GroupError as error:
            _log_refusal(self._connection, message, error)

    def groups_update_info(self, message: Message) -> None:
        try:
            self.update_info(message["info"])
        except (GroupError, ValueError) as error:
            _log_no_update(self._connection, error)

    def _facts(self) -> tuple[Any, Any, bool]:
        has_hooks = self._has_hooks(GroupConsumerMixin)
        return self.get_group_user_id(), self.get_group_info(), has_hooks


class _StateConsumer:
    """What both mixins for state share."""

    _shows_state = True
    _connection: LocalConnection

    def _news(self, message: Message) -> News | None:
        """Return what is to be sent, if the client may be sent it yet, and still."""
        viewer: Viewer = message["viewer"]
        if viewer.membership.silent:
            return None
        if not self._connection.is_open:
            viewer.forget()
            return None
        news: News = message["news"]
        return news

    def _answer(self, text_data: str | None) -> Message | bool:
        """Return what a client is to be answered which asks the mixin something.

        True: nothing now, it will be shown a state again; False: it has not asked.
        """
        kind, content = _question(text_data)
        if kind == "group.ping":
            return {"type": "group.pong"}
        if kind != "group.state":
            return False
        name = content.get("group")
        memberships = self._connection.memberships
        membership = memberships.get(name) if isinstance(name, str) else None
        if membership is not None and membership.viewer is not None:
            membership.viewer.forget()
        return True


class AsyncGroupStateConsumerMixin(_StateConsumer, AsyncGroupConsumerMixin):
    """Show the client who is in its groups; put it before AsyncJsonWebsocketConsumer.

    On entering a group the client gets ``{"type": "group.state", "group", "revision",
    "id", "count", "user_count", "members"}``, and then ``{"type": "group.change",
    "group", "revision", "previous", "joined", "left", "updated", "count",
    "user_count"}``, in order and with nothing missing: ``previous`` is the revision of
    what came before. ``id`` is the client's own, ``left`` has ids. On leaving it gets
    ``{"type": "group.left", "group"}``.

    Whatever the channel layer loses, the client's view is that of the store again
    within two seconds. In a group of more members than STATE_LIMIT ``members`` is
    None, and changes, at most one a second, have only the counts. A client that
    sends ``{"type": "group.state", "group"}`` gets a whole state again, within a
    second; one that sends ``{"type": "group.ping"}`` gets ``{"type": "group.pong"}``.
    groups.js in the package's static files does all of this.
    """

    def get_group_member(self, connection: Connection) -> Any:
        """Return a dict of what the client may see of a member, or None of nothing.

        ``id`` is added to it. By default it is the user id and the info. May be
        overridden as async; it is called for every member, so it should not ask a
        database: what it needs belongs into get_group_info().
        """
        return {"user_id": connection.user_id, "info": connection.info}

    async def receive(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        answer = self._answer(text_data)
        if answer is False:
            await super().receive(  # type: ignore[misc]
                text_data=text_data, bytes_data=bytes_data, **kwargs
            )
        elif answer is not True:
            await self.send_json(answer)  # type: ignore[attr-defined]

    async def groups_state(self, message: Message) -> None:
        news = self._news(message)
        if news is not None:
            seen = [(one.id, await self._see(one)) for one in news.connections]
            content = news.content(dict(seen), message["viewer"])
            await self.send_json(content)  # type: ignore[attr-defined]

    async def groups_left(self, message: Message) -> None:
        if self._connection.is_open:
            content = {"type": "group.left", "group": message["group"]}
            await self.send_json(content)  # type: ignore[attr-defined]

    async def _see(self, connection: Connection) -> Any:
        member = self.get_group_member(connection)
        return await member if inspect.isawaitable(member) else member


class GroupStateConsumerMixin(_StateConsumer, GroupConsumerMixin):
    """Show the client who is in its groups; put it before JsonWebsocketConsumer.

    See AsyncGroupStateConsumerMixin: what the client gets is the same.
    """

    def get_group_member(self, connection: Connection) -> dict[str, Any] | None:
        """Return a dict of what the client may see of a member, or None of nothing."""
        return {"user_id": connection.user_id, "info": connection.info}

    def receive(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        answer = self._answer(text_data)
        if answer is False:
            super().receive(  # type: ignore[misc]
                text_data=text_data, bytes_data=bytes_data, **kwargs
            )
        elif answer is not True:
            self.send_json(answer)  # type: ignore[attr-defined]

    def groups_state(self, message: Message) -> None:
        news = self._news(message)
        if news is not None:
            seen = {one.id: self.get_group_member(one) for one in news.connections}
            content = news.content(seen, message["viewer"])
            self.send_json(content)  # type: ignore[attr-defined]

    def groups_left(self, message: Message) -> None:
        if self._connection.is_open:
            content = {"type": "group.left", "group": message["group"]}
            self.send_json(content)  # type: ignore[attr-defined]


def _question(text_data: str | None) -> tuple[Any, Message]:
    """Return the type and all of a message of JSON that may be for the mixin."""
    if not text_data or '"group.' not in text_data:
        return None, {}
    try:
        content = json.loads(text_data)
    except (ValueError, RecursionError):
        return None, {}
    return (content.get("type"), content) if isinstance(content, dict) else (None, {})


def _log_refusal(
    connection: LocalConnection, message: Message, error: GroupError
) -> None:
    logger.info(
        "Connection %s was asked into group %r, which was refused: %s",
        *(connection.id, message["name"], error),
        extra={**connection.about, "group": message["name"]},
    )


def _log_no_update(connection: LocalConnection, error: Exception) -> None:
    logger.info(
        "Connection %s was asked to update its info, and did not: %s",
        *(connection.id, error),
        extra=connection.about,
    )

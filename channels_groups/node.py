"""The live connections of one event loop and channel layer alias."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Coroutine, TypeVar

from . import shutdown
from .announcer import (
    Announcer,
    check_not_announcing,
    check_not_awaited,
    waits_for,
    would_wait_for_ever,
)
from .changes import Changes
from .connection import LocalConnection, Message, Send
from .facts import check_info
from .membership import JOINED, Membership
from .shard import Shard
from .state import States
from .stores.base import Member
from .thread import OldConnections

if TYPE_CHECKING:
    from .groups import ConnectionGroup
    from .manager import GroupManager

T = TypeVar("T")

#: Seconds that a consumer waits for its own leaves; they go on without it.
ENDING = 5

_numbers = itertools.count()
_nodes: dict[tuple[asyncio.AbstractEventLoop, str, str], Node] = {}

#: Which process this is, where a test simulates several (see testing.py).
simulated: ContextVar[str] = ContextVar("channels_groups_simulated", default="")


def find_nodes(alias: str) -> list[Node]:
    """Return this process' nodes for an alias, one per event loop with connections."""
    here = alias, simulated.get()
    return [node for (_, *key), node in list(_nodes.items()) if (*key,) == here]


class Node:
    """Made by the first connection of its event loop and gone with the last.

    It joins and leaves groups for its connections. What a consumer that is cancelled,
    even twice, leaves undone of an operation, the writer's task does.
    """

    def __init__(self, manager: GroupManager) -> None:
        self.loop = asyncio.get_running_loop()
        self.key = self.loop, manager.alias, simulated.get()
        #: Of the consumer that connected last: nearly always they have the same.
        self.manager = manager
        self.alias = manager.alias
        self.settings = manager.settings
        self.layer = manager.channel_layer
        self.store = manager.store
        #: As Incarnation has it.
        self.process = f"{socket.gethostname()}:{os.getpid()}:{next(_numbers)}"
        self.connections: dict[str, LocalConnection] = {}
        #: (group, connection id) -> whose membership of another id that is.
        self.resumed: dict[tuple[str, str], LocalConnection] = {}
        self.announcer = Announcer()
        self.states = States(manager)
        self.changes = Changes(manager, self.states)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._staying: asyncio.Task[None] | None = None
        #: Its members need not be told that they leave.
        self.is_told_to_stop = False
        #: Done when all have left that leave_all() took out.
        self._leaving: asyncio.Future[Any] = self.loop.create_future()
        self._leaving.set_result(None)
        self._stays = asyncio.Event()
        self.old_connections = OldConnections()
        self.store.attach()
        self._shards = [Shard(self, index) for index in range(self.store.shards)]
        self.hook = shutdown.add(self)

    @classmethod
    def connect(
        cls,
        manager: GroupManager,
        consumer: Any,
        scope: Message,
        send: Send,
    ) -> tuple[Node, LocalConnection]:
        """Return the running loop's node with a new connection in it."""
        for key in list(_nodes):
            if key[0].is_closed():
                del _nodes[key]
        node = _nodes.get((asyncio.get_running_loop(), manager.alias, simulated.get()))
        if node is None:
            node = cls(manager)
            _nodes[node.key] = node
        node.manager = manager
        outbox = node.settings.outbox
        connection = LocalConnection(consumer, scope, send, outbox, node.alias)
        node.connections[connection.id] = connection
        return node, connection

    async def join(
        self,
        connection: LocalConnection,
        group: ConnectionGroup,
        user_id: str | None,
        info: dict[str, Any],
        limit: int | None,
        hooked: bool,
        shown: bool = False,
    ) -> None:
        """Make a connection a member; see Shard.join() for what it raises."""
        connection.check_open()
        channel_name = connection.channel_name
        member = Member(connection.id, channel_name, user_id, info, time.time())
        membership = Membership(group, connection, member, hooked, shown)
        for former in self.find_resumable(membership) or ():
            held = self._held(group.name, former)
            is_another = held and held.connection is not connection
            if held and is_another and held.member.user_id == user_id:
                self._take_over(held)
                break
        with waits_for(group.name):
            await self._shard(group).join(membership, limit)

    def check_free(self, connection: LocalConnection) -> None:
        """Raise RuntimeError in a receiver that the connection waits for.

        And in another event loop, as async_to_sync() makes one in a thread that
        Channels knows nothing of.
        """
        check_not_awaited(connection)
        if asyncio.get_running_loop() is not self.loop and not connection.ended:
            raise RuntimeError(
                "A consumer joins and leaves groups in the event loop of its "
                "connection: from other threads use Connection.set_group()."
            )

    def check_may_wait(self, group: ConnectionGroup) -> None:
        """Raise RuntimeError where waiting for a leave would never end."""
        check_not_announcing(group.name)

    async def leave(
        self, connection: LocalConnection, group: ConnectionGroup, reason: str
    ) -> None:
        """End a membership. Return when it is done, or remembered if it cannot be."""
        membership = connection.memberships.get(group.name)
        if membership is not None:
            await self._leave(membership, reason)

    async def update(self, connection: LocalConnection, info: dict[str, Any]) -> None:
        """Merge ``info`` into that of a connection in all of its groups.

        Return when it is done, or remembered if it cannot be. Raise ConnectionClosed,
        or ValueError if one would become too large; then none has changed.
        """
        connection.check_open()
        updates = check_info({**connection.updates, **info}, "update_info()")
        updated = [
            (one, check_info({**one.member.info, **info}, "update_info()"))
            for one in connection.memberships.values()
        ]
        connection.updates = updates
        await asyncio.gather(*(self._update(*one) for one in updated))

    async def disconnect(self, connection: LocalConnection) -> None:
        """End a connection and its memberships, whatever happens to the caller."""
        ending = self._spawn(self._disconnect(connection), f"end {connection.id}")
        await asyncio.wait([ending], timeout=ENDING)

    def close_all(self, code: int | None, reason: str | None) -> None:
        """Close every connection."""
        for connection in list(self.connections.values()):
            connection.close(code, reason)

    def leave_all(self) -> asyncio.Future[Any]:
        """Begin to take all members out: the process is told to stop.

        Return what is done when they are out and the signals have been fired, or the
        store has not answered. They leave group by group, so that a group's leaves
        are in one commit and are told at once. Who still joins leaves with its
        connection.
        """
        self.is_told_to_stop = True
        memberships = [
            membership
            for connection in self.connections.values()
            for membership in connection.memberships.values()
            if membership.state is JOINED
        ]
        memberships.sort(key=lambda one: one.group.name)
        leaves = [self._leave_at_end(one) for one in memberships]
        if leaves:
            self._leaving = asyncio.gather(self._leaving, *leaves)
        return self._leaving

    async def shutdown(self) -> None:
        """End every connection and its memberships."""
        self.leave_all()
        connections = list(self.connections.values())
        await asyncio.gather(*(self._disconnect(one) for one in connections))
        self.close_if_idle()
        if self._closing:
            await asyncio.wait([self._closing])

    def find(self, member: Member, group: str) -> LocalConnection | None:
        """Return whose membership it is if that is here."""
        local = self._find(group, member.id)
        # Another process may have gone on with it.
        return local if local and local.channel_name == member.channel_name else None

    def find_resumable(self, membership: Membership) -> tuple[str, ...] | None:
        """Return what Join.resume is for a membership that begins."""
        if not self.store.lingers or membership.member.user_id is None:
            return None
        if membership.connection.former:
            return membership.connection.former
        for other in membership.connection.memberships.values():
            if other is not membership:
                return (other.member.id,)
        return ()

    def end_lingering(self, group: str, id: str, channel_name: str) -> None:
        """Note that a membership which this node let linger does so no more.

        If it was still this node's, its connection is over: another one goes on.
        """
        self._shards[self.store.shard(group)].end_lingering(group, id)
        held = self._held(group, id)
        # It may have come back here meanwhile.
        if held and held.connection.channel_name == channel_name:
            self._take_over(held)

    def find_out(self, group: str, id: str) -> None:
        """Ask whether a membership still is this node's, which ends it if it is not."""
        held = self._held(group, id)
        if held:
            self._spawn(self._shard(held.group).confirm(held), f"find out about {id}")

    def enter_again(self, host: int) -> None:
        """Enter the groups again that a host of the layer may have forgotten."""
        for shard in self._shards:
            shard.enter_again(host)

    def close_if_idle(self) -> None:
        """Go with the last connection, and with the last membership that lingers."""
        if self.connections or self._closing:
            return
        lingers = any(shard.lingering for shard in self._shards)
        if lingers and not self.is_told_to_stop:
            if self._staying is None:
                self._staying = self._spawn(self._stay(), "stay while members linger")
            return
        # At once: who connects now must not meet a node that closes.
        _nodes.pop(self.key, None)
        self._closing = self._spawn(self._close(), "close the node")

    def _shard(self, group: ConnectionGroup) -> Shard:
        return self._shards[self.store.shard(group.name)]

    def _find(self, group: str, id: str) -> LocalConnection | None:
        # Whose id it was at first may be about to end.
        return self.resumed.get((group, id)) or self.connections.get(id)

    def _held(self, group: str, id: str) -> Membership | None:
        """Return the membership of this id that a connection of this node has."""
        local = self._find(group, id)
        membership = local.memberships.get(group) if local else None
        return membership if membership and membership.member.id == id else None

    def _take_over(self, membership: Membership) -> None:
        """End its connection here, as another one goes on with the membership.

        If that is of this node its join comes after this leave, in order.
        """
        membership.connection.give_way(1000)
        grace = self._grace(membership.connection)
        self._shard(membership.group).leave_soon(membership, "disconnected", grace)

    def _grace(self, connection: LocalConnection) -> float:
        grace: float | None = connection.consumer.group_grace
        return self.settings.grace if grace is None else grace

    async def _leave(
        self, membership: Membership, reason: str, grace: float = 0
    ) -> None:
        shard, name = self._shard(membership.group), membership.group.name
        if would_wait_for_ever(name):  # Since check_may_wait().
            shard.leave_soon(membership, reason, grace)
            return
        with waits_for(name):
            await shard.leave(membership, reason, grace)

    async def _leave_at_end(self, membership: Membership) -> None:
        """End a membership with its connection, or let it linger."""
        connection = membership.connection
        lingers = self.store.lingers and not connection.dismissed
        grace = self._grace(connection) if lingers else 0
        await self._leave(membership, "disconnected", grace)

    async def _update(self, membership: Membership, info: dict[str, Any]) -> None:
        with waits_for(membership.group.name):
            await self._shard(membership.group).update(membership, info)

    async def _disconnect(self, connection: LocalConnection) -> None:
        connection.ended = True
        memberships = list(connection.memberships.values())
        leaves = [self._leave_at_end(one) for one in memberships]
        if len(leaves) == 1:  # Without a task: so it is for nearly all.
            await leaves[0]
        elif leaves:
            await asyncio.gather(*leaves)
        if not self._leaving.done():  # What is left to do must not hold that up.
            await asyncio.wait([self._leaving])
        await connection.finish()
        self.connections.pop(connection.id, None)
        self.close_if_idle()
        if self._closing:
            # A shutdown ends each connection once more, and must not return before.
            await asyncio.wait([self._closing])

    async def _stay(self) -> None:
        """Be there until the node closes.

        A loop that ends cancels all tasks, the writers too, and is the only sign that
        a process without connections is told to stop, under uvicorn for one.
        """
        try:
            await self._stays.wait()
        except asyncio.CancelledError:
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        """Give up the leases without the writers' help."""
        _nodes.pop(self.key, None)
        await asyncio.gather(*(shard.abandon() for shard in self._shards))
        await self.store.detach()
        shutdown.remove(self.hook)

    async def _close(self) -> None:
        """Close all. The next connection makes another node."""
        if self._staying:
            self._stays.set()
            await asyncio.wait([self._staying])
        await asyncio.gather(*(shard.close() for shard in self._shards))
        await self.changes.stop()
        await self.states.stop()
        await self.announcer.stop()
        await self.store.detach()
        shutdown.remove(self.hook)

    def _spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = self.loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

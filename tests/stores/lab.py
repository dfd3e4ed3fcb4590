"""A store in the hands of a test: nodes, time and faults."""

import asyncio
from dataclasses import replace

from django.db import connections

from channels_groups import names
from channels_groups.database import models
from channels_groups.database.vendors import Clock as Now
from channels_groups.stores.base import (
    LINGERING,
    Confirm,
    Entry,
    Holdings,
    Incarnation,
    Join,
    Leave,
    Member,
    Update,
)

from ..helpers import layers
from ..helpers.eventually import aeventually

LEASE = 60
RENEWAL = 20

MODELS = (
    *(models.Book, models.Node, models.Group, models.Part, models.Membership),
    models.Watcher,
)


class Clock:
    """The time, which goes on when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Lab:
    """A store with its nodes: the memory store, and what others have in common."""

    #: An answer can be lost on its way, so the last one to a dead node is kept.
    keeps_answers = False

    def __init__(self, store, clock=None):
        self.store = store
        self.clock = clock
        self.nodes = []

    async def node(self, lease=LEASE, shard=0):
        """Return a new node with a lease."""
        node = Node(self.store, f"node{len(self.nodes)}", shard)
        self.nodes.append(node)
        await node.register(lease)
        return node

    async def expire(self, *nodes):
        """Let the leases of nodes run out."""
        for node in nodes:
            await node.renew(lease=0.05)
        if self.clock:
            self.clock.now += 0.05
        gone = {node.incarnation.channel for node in nodes}

        async def are_gone():
            return gone.isdisjoint(await self.store.channels())

        await aeventually(are_gone)

    def run_out(self, node):
        """Put the end of a node's lease into the past."""
        self.store._nodes[node.id].deadline = self.clock.now - 1

    def keys(self):
        """Return what there is of nodes and groups, and will stay there."""
        return [*self.store._nodes, *self.store._groups]

    async def close(self):
        """Close what the store and its layer keep for this event loop."""
        await self.store.detach()

    async def leave_nothing(self):
        """Take every node out; then nothing may be left."""
        for node in self.nodes:
            await node.leave_all()
            await node.release()
        assert not self.keys()


class RedisLab(Lab):
    """A store on a server of which a prefix is its own."""

    keeps_answers = True

    def __init__(self, store, server, prefix):
        super().__init__(store)
        self.server = server
        self.prefix = prefix

    def run_out(self, node):
        with self.server.client() as client:
            client.zadd(f"{self.prefix}:groups:leases", {node.id: 1}, xx=True)

    async def disconnect(self, node):
        """Let the store's connection of a node end."""
        await self.store._unsubscribe(node.incarnation)

    def is_connected(self, node):
        channel = f"{self.prefix}:groups:alive:{node.id}"
        return channel in self._subscriptions()

    async def rebuilt(self):
        """Wait until the store takes more than what is written back."""
        with self.server.client() as client:
            key = f"{self.prefix}:groups:rebuilding"
            await aeventually(lambda: not client.exists(key))

    def empty(self):
        """Delete everything that the store has on the server, as FLUSHALL does."""
        with self.server.client() as client:
            for key in layers.keys_of(self.server, self.prefix):
                client.delete(key)

    def lose_lease(self, node):
        """Delete what says that a node has a lease."""
        with self.server.client() as client:
            assert client.zrem(f"{self.prefix}:groups:leases", node.id)

    def lose_index(self, node):
        """Delete what says in which groups a node has members."""
        with self.server.client() as client:
            assert client.delete(f"{self.prefix}:groups:node:{node.id}")

    async def restart(self, dump):
        """Let the server start again with the data that dump() returned."""
        self.empty()
        with self.server.client() as client:
            for key, value in dump.items():
                client.restore(key, 0, value)
            client.set(f"{self.prefix}:groups:run", "another")
        for node in self.nodes:
            await self.disconnect(node)
        await aeventually(self._subscriptions, equals=[])

    def dump(self):
        """Return what the store has on the server."""
        with self.server.client(decode_responses=False) as client:
            keys = layers.keys_of(self.server, self.prefix)
            return {key: client.dump(key) for key in keys}

    def keys(self):
        # What an evicted node may yet ask for expires by itself.
        keys = layers.keys_of(self.server, self.prefix)
        return [key for key, ttl in keys.items() if not 0 < ttl <= 600]

    async def close(self):
        await super().close()
        layer = self.store.layer
        if hasattr(layer, "close_pools"):
            await layer.close_pools()
        else:
            await layer.flush()

    async def leave_nothing(self):
        await super().leave_nothing()
        await aeventually(self._subscriptions, equals=[])

    def _subscriptions(self):
        return layers.subscriptions_of(self.server, self.prefix)


class DatabaseLab(Lab):
    """A store on a database of the tests' own."""

    keeps_answers = True

    def __init__(self, store, database):
        super().__init__(store)
        self.database = database

    def rows(self, model):
        """Return the rows of a table, to be used in run()."""
        return model.objects.using(self.database.alias)

    def run_out(self, node):
        found = self.rows(models.Node).filter(id=node.id, evicted_until=0)
        self.database.run(found.update, deadline=1)

    async def disconnect(self, node):
        """Let go what the connection of a node holds."""
        await self.store.forget(node.incarnation)

    def is_connected(self, node):
        held = self.store._vendor.held
        connection = self.database.run(lambda: connections[self.database.alias])
        return bool(self.database.run(held, connection, "default", [node.id]))

    async def rebuilt(self):
        """Wait until the store takes more than what is written back."""
        books = self.rows(models.Book).filter(rebuilding__gt=Now())
        await aeventually(lambda: not self.database.run(books.exists))

    def empty(self):
        """Delete all rows."""
        for model in MODELS:
            self.database.run(self.rows(model).all().delete)

    async def close(self):
        await super().close()
        self.empty()  # Of what a test leaves that fails.

    def lose_lease(self, node):
        """Delete what says that a node has a lease."""
        assert self.database.run(self.rows(models.Node).filter(id=node.id).delete)[0]

    def lose_index(self, node):
        """Delete what says in which groups a node has members."""
        assert self.database.run(self.rows(models.Part).filter(node=node.id).delete)[0]

    def keys(self):
        # The book stays, and what an evicted node may yet ask for.
        nodes = self.rows(models.Node).filter(evicted_until=0)
        others = [self.rows(model).all() for model in MODELS[2:]]
        return [
            row for rows in (nodes, *others) for row in self.database.run(list, rows)
        ]


class Node:
    """A process as the store sees it; it remembers what it is a member of."""

    def __init__(self, store, id, shard=0):
        self.store = store
        self.shard = shard
        self.incarnation = Incarnation(id, f"specific.{id}!channel", f"host:1:{id}")
        self.epoch = ""
        self.sequence = 0
        self.evictions = 0
        self.held = {}

    @property
    def id(self):
        return self.incarnation.id

    async def register(self, lease=LEASE):
        self.epoch = await self.store.register(
            self.shard, self.incarnation, self.epoch, lease
        )
        return self.epoch

    async def renew(self, lease=LEASE, renewal=RENEWAL, holdings=Holdings()):
        return await self.store.renew(
            self.shard, self.incarnation, self.epoch, lease, renewal, holdings
        )

    async def commit(self, *operations, sequence=None, restore=False):
        if sequence is None:
            sequence = self.sequence + 1
        self.sequence = max(self.sequence, sequence)
        groups = {operation.group for operation in operations}
        answers = await self.store.commit(
            self.shard,
            self.incarnation,
            sequence,
            operations,
            {group: self.entries(group) for group in groups},
            restore,
        )
        for operation, answer in zip(operations, answers):
            key = operation.group, operation.member.id
            if answer.outcome in ("created", "joined"):
                self.held[key] = operation
            elif answer.outcome == "resumed":
                former = operation.member._replace(id=answer.former.id)
                self.held[key[0], former.id] = replace(operation, member=former)
            elif answer.outcome in ("left", "destroyed", "lingering"):
                self.held.pop(key, None)
        return answers

    def entries(self, group):
        return [Entry(names.own_name(group), self.incarnation.channel)]

    async def join(self, group, member, limit=None, told=False, resume=None):
        return (await self.commit(Join(group, member, limit, told, resume)))[0]

    async def leave(self, group, member, told=False, grace=0):
        return (await self.commit(Leave(group, member, told, grace)))[0]

    async def update(self, group, member, told=False):
        return (await self.commit(Update(group, member, told)))[0]

    async def confirm(self, group, member):
        return (await self.commit(Confirm(group, member)))[0]

    async def leave_all(self):
        """Leave what it is still in, unless it was evicted."""
        joins = list(self.held.values())
        leaves = [Leave(one.group, one.member, one.told) for one in joins]
        if leaves and (await self.renew()).state == "alive":
            await self.commit(*leaves)

    async def evict(
        self, dead, *, limit=100, sequence=None, lease=LEASE, renewal=RENEWAL
    ):
        if sequence is None:
            sequence = self.evictions + 1
        self.evictions = max(self.evictions, sequence)
        return await self.store.evict(
            self.shard,
            self.incarnation,
            sequence,
            dead.id,
            lease,
            renewal,
            limit,
        )

    async def end_graces(self, *, limit=100):
        """Take out who has lingered for too long, when the store says there are any."""

        async def are_due():
            return LINGERING in (await self.renew()).overdue

        await aeventually(are_due)
        self.evictions += 1
        about = self.shard, self.incarnation, self.evictions, LINGERING
        return await self.store.evict(*about, LEASE, RENEWAL, limit)

    async def evict_all(self, dead, *, limit=100):
        """Evict batch by batch, and return the batches."""
        batches = [await self.evict(dead, limit=limit)]
        while not batches[-1].done:
            batches.append(await self.evict(dead, limit=limit))
            await asyncio.sleep(0)
        return batches

    async def release(self):
        await self.store.release(self.shard, self.incarnation)


def member(id, user=None, info=None, channel=None, joined_at=1_700_000_000.25):
    """Return a member."""
    channel = channel or f"specific.{id}!{0:032x}"
    return Member(id, channel, user, info or {}, joined_at)


async def list_members(store, group):
    """Return all pages of a group's members, and how many pages there were."""
    members, cursor = await store.members(group, None)
    pages = 1
    while cursor is not None:
        page, cursor = await store.members(group, cursor)
        members = members + page
        pages += 1
    return members, pages


async def list_groups(store, prefix=""):
    """Return all pages of the groups, and how many pages there were."""
    groups, cursor = await store.groups(prefix, None)
    pages = 1
    while cursor is not None:
        page, cursor = await store.groups(prefix, cursor)
        groups = groups + page
        pages += 1
    return groups, pages

"""The stores beside channels_redis: memberships in the layer's own Redis.

The data and who may change it are described in lua/common.lua; each operation is
one script. Checked with channels_redis 4.3.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from dataclasses import replace
from typing import Any, Awaitable, Mapping, Sequence
from weakref import WeakKeyDictionary

import msgpack
from channels_redis.utils import create_pool, decode_hosts
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from channels_groups import names
from channels_groups.conf import get_settings
from channels_groups.deadline import in_time
from channels_groups.exceptions import StoreUnavailable

from .base import (
    PAGE,
    Answer,
    BaseStore,
    Entry,
    Eviction,
    Findings,
    Holdings,
    Incarnation,
    LeaseLost,
    Loss,
    Member,
    NodeState,
    Operation,
    Renewal,
    StoreRebuilding,
    Summary,
)
from .line import BROKEN, LOST, Line, borrow
from .records import Records
from .scripts import Script, glob, load
from .verify import Verification

logger = logging.getLogger("channels_groups")

#: Seconds until a call counts as unanswered; the contract allows two.
TIMEOUT = 1.5
#: Reads under way at once in one event loop; a pool of redis-py 8 has 100 connections.
READS = 32
#: A renewal is missed when it is overdue by so much of itself.
PATIENCE = 1.6

OUTCOMES = (
    *("unchanged", "joined", "created", "left", "destroyed", "full", "updated"),
    *("lingering", "resumed", "elsewhere", "taken", "confirmed"),
)


class RedisStore(BaseStore):
    """What the stores for both layers of channels_redis share."""

    def __init__(self, alias: str, layer: Any) -> None:
        config = settings.CHANNEL_LAYERS[alias].get("CONFIG", {})
        _check_hosts(config.get("hosts"))
        self.layer = layer
        self.prefix = f"{config.get('prefix', 'asgi')}:groups:"
        self.records = Records(config.get("symmetric_encryption_keys"))
        self.lingers = get_settings(alias).grace > 0
        self._alive: dict[Incarnation, PubSub] = {}
        self._attached: dict[asyncio.AbstractEventLoop, int] = {}
        #: By event loop and shard, as long as the loop is attached.
        self._lines: dict[asyncio.AbstractEventLoop, dict[int, Line]] = {}
        #: Those of other loops; connections hold their loops.
        self._borrowed: dict[asyncio.AbstractEventLoop, dict[int, Line]] = {}
        self._reads: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._reads = WeakKeyDictionary()

    def client(self, shard: int) -> Redis:
        """Return this event loop's client of one shard."""
        raise NotImplementedError

    def attach(self) -> None:
        loop = asyncio.get_running_loop()
        self._attached[loop] = self._attached.get(loop, 0) + 1
        self._lines.setdefault(loop, {})

    async def detach(self) -> None:
        loop = asyncio.get_running_loop()
        self._attached[loop] -= 1
        if not self._attached[loop]:
            del self._attached[loop]
            for line in self._lines.pop(loop).values():
                await line.close()

    # Written by nodes

    async def register(
        self, shard: int, node: Incarnation, epoch: str, lease: float
    ) -> str:
        keys = self._keys(
            *("leases", "epoch", "rebuilding", "channels", "void", "index"),
            *("sizes", "revision", "told", "run", f"answer:{node.id}"),
        )
        args = [node.id, node.channel, lease, epoch, uuid.uuid4().hex, self._rebuild]
        args += [self._layer_prefix, node.process]
        answer: bytes | None = await self._run(shard, REGISTER, keys, args)
        if answer is None:
            raise StoreRebuilding
        await self._subscribe(shard, node)
        return answer.decode()

    async def renew(
        self,
        shard: int,
        node: Incarnation,
        epoch: str,
        lease: float,
        renewal: float,
        holdings: Holdings = Holdings(),
    ) -> Renewal:
        keys = self._keys(
            *("leases", "epoch", "rebuilding", "void", "index", "sizes", "channels"),
            *("run", f"node:{node.id}", f"answer:{node.id}", "watchers"),
        )
        patience = renewal * PATIENCE
        args = [node.id, epoch, lease, patience, uuid.uuid4().hex, self._rebuild]
        audit = {}
        for group, (n, user) in holdings.groups.items():
            sealed = False if user is None else self.records.seal_user(user)
            audit[group] = [n, sealed, holdings.ids.get(group, False)]
        args += [holdings.sequence, holdings.size, _pack(audit), holdings.connections]
        answer = await self._run(shard, RENEW, keys, args)
        state, epoch = answer[0].decode(), answer[1].decode()
        watchers = [channel.decode() for channel in answer[3]]
        damaged = state == "damaged"
        state = "alive" if damaged else state
        if not answer[2]:
            await self._drop_idle(shard)
            await self._subscribe(shard, node)
            return Renewal(state, epoch, [], True, watchers, damaged=damaged)
        places = [one.decode() for one in answer[4]]
        taken = list(zip(places[::2], places[1::2]))
        overdue = [other.decode() for other in answer[5:]]
        return Renewal(state, epoch, overdue, False, watchers, taken, damaged)

    async def commit(
        self,
        shard: int,
        node: Incarnation,
        sequence: int,
        operations: Sequence[Operation],
        entries: Mapping[str, Sequence[Entry]],
        restore: bool = False,
    ) -> list[Answer]:
        keys = self._keys(
            *("leases", "index", "revision", "rebuilding", "sizes", "told"),
            *(f"node:{node.id}", f"answer:{node.id}"),
        )
        packed = [self.records.pack(operation) for operation in operations]
        layer = {
            group: [[*entry, int(self.adds(shard, entry))] for entry in wanted]
            for group, wanted in entries.items()
        }
        args = [node.id, sequence, "1" if restore else "", _pack(packed)]
        args += [_pack(layer), self._layer_prefix, self._group_expiry]
        answer = await self._run(shard, COMMIT, keys, args)
        if isinstance(answer, bytes):
            return [self._answer(*one) for one in msgpack.unpackb(answer, raw=True)]
        raise LeaseLost if answer == [b"lost"] else StoreRebuilding

    async def evict(
        self,
        shard: int,
        node: Incarnation,
        sequence: int,
        dead: str,
        lease: float,
        renewal: float,
        limit: int,
    ) -> Eviction:
        keys = self._keys(
            *("leases", "index", "revision", "sizes", "channels", "told"),
            *(f"node:{dead}", f"answer:{dead}", f"answer:{node.id}"),
        )
        args = [dead, sequence, limit, lease, renewal * PATIENCE, self._layer_prefix]
        packed = await self._run(shard, EVICT, keys, args)
        done, entries, losses = msgpack.unpackb(packed, raw=True)
        return Eviction(
            [
                Loss(
                    group.decode(),
                    self.records.unpack(id, record),
                    replace(_answer(*answer), owner=owner.decode()),
                )
                for group, id, record, *answer, owner in losses
            ],
            [Entry(group.decode(), channel.decode()) for group, channel, _ in entries],
            bool(done),
        )

    async def release(self, shard: int, node: Incarnation) -> None:
        keys = self._keys(
            *("leases", "channels", "sizes", f"node:{node.id}", f"answer:{node.id}"),
            *("epoch", "rebuilding", "revision", "told", "void", "run"),
        )
        try:
            # First, or who registers next takes this for a node that goes on living
            # and has not written its data back yet.
            await self._fall_silent(node)
            await self._run(shard, RELEASE, keys, [node.id])
        finally:
            await self._unsubscribe(node)

    async def forget(self, node: Incarnation) -> None:
        await self._unsubscribe(node)

    # Read by everybody

    async def count(self, group: str) -> int:
        keys = self._keys("index", "leases")
        count: int = await self._read(self.shard(group), COUNT, keys, [group])
        return count

    async def user_count(self, group: str) -> int:
        users, gone, share = await self._count_users(group)
        return users - round(len(gone) * share)

    async def users(self, group: str) -> set[str]:
        shard, key = self.shard(group), f"{self.prefix}users:{group}"
        there, gone, _ = await self._count_users(group)
        if not there:
            return set()
        users: set[bytes] = set()
        cursor = None
        while cursor != 0:
            cursor, page = await self._scan(shard, key, cursor or 0)
            users.update(page)
        return {self.records.open_user(user) for user in users.difference(gone)}

    async def member(self, group: str, id: str) -> Member | None:
        keys = self._keys("leases")
        record = await self._read(self.shard(group), MEMBER, keys, [group, id])
        return self.records.unpack(id.encode(), record) if record else None

    async def summaries(self, shard: int, groups: Sequence[str]) -> list[Summary]:
        keys = self._keys("leases", "index", "told", "rebuilding", "void")
        found: list[Summary] = []
        while len(found) < len(groups):
            args = [_pack([*groups[len(found) :]])]
            answer = await self._read(shard, SUMMARIES, keys, args)
            if answer is None:
                raise StoreRebuilding
            for revision, count, users in answer:
                if users < 0:
                    users = await self.user_count(groups[len(found)])
                found.append(Summary(revision, count, users))
        return found

    async def user_members(
        self, user_id: str, cursor: Any
    ) -> tuple[list[tuple[str, Member]], Any]:
        shard, position = cursor or (0, 0)
        args = [self.records.seal_user(user_id), position, PAGE]
        keys = self._keys("leases")
        position, page = await self._read(shard, USER, keys, args)
        members = [
            (group.decode(), self.records.unpack(id, record))
            for group, id, record in zip(page[::3], page[1::3], page[2::3])
        ]
        if int(position):
            return members, (shard, int(position))
        return members, (shard + 1, 0) if shard + 1 < self.shards else None

    async def group_nodes(self, group: str) -> list[str]:
        keys = self._keys("leases")
        nodes = await self._read(self.shard(group), NODES, keys, [group])
        return [node.decode() for node in nodes]

    async def node_members(
        self, group: str, node: str, cursor: str, size: int = PAGE
    ) -> tuple[list[Member], str]:
        key = f"{self.prefix}members:{group}:{node}"
        position, page = await self._scan(
            self.shard(group), key, int(cursor or 0), size
        )
        members = [self.records.unpack(id, record) for id, record in page.items()]
        return members, str(position) if position else ""

    async def groups(
        self, prefix: str, cursor: Any
    ) -> tuple[list[tuple[str, int]], Any]:
        if not prefix:
            return await self._ranked(cursor or (0,) * self.shards)
        shard, position = cursor or (0, 0)
        args = [glob(prefix), position, PAGE]
        keys = self._keys("index", "leases")
        position, page = await self._read(shard, GROUPS, keys, args)
        groups = [group for group in _counts(page) if group[1] > 0]
        if int(position):
            return groups, (shard, int(position))
        return groups, (shard + 1, 0) if shard + 1 < self.shards else None

    async def _ranked(
        self, ranks: tuple[int, ...]
    ) -> tuple[list[tuple[str, int]], tuple[int, ...] | None]:
        """Return the page that begins at a rank in each shard, and where the next does.

        A page is the largest of what all shards have next.
        """
        found = [
            (count, name, shard)
            for shard, first in enumerate(ranks)
            for name, count in await self.ranking(shard, first, PAGE)
        ]
        page = sorted(found, key=lambda entry: entry[0], reverse=True)[:PAGE]
        passed = Counter(shard for *_, shard in page)
        groups = [(name, count) for count, name, _ in page if count > 0]
        if len(found) < PAGE:
            return groups, None
        return groups, tuple(rank + passed[n] for n, rank in enumerate(ranks))

    async def ranking(
        self, shard: int, first: int, size: int, ascending: bool = False
    ) -> list[tuple[str, int]]:
        keys = self._keys("index", "leases")
        found: list[tuple[str, int]] = []
        while len(found) < size:
            args = [first + len(found), size - len(found), "1" if ascending else ""]
            looked, *page = await self._read(shard, RANKING, keys, args)
            found += _counts(page)
            if len(page) < 2 * looked:
                break
        return found

    async def group_count(self) -> int:
        return sum([await self._count_groups(shard) for shard in range(self.shards)])

    async def membership_count(self) -> int:
        return sum([(await self._totals(n))[1] for n in range(self.shards)])

    async def channels(self) -> list[str]:
        keys = self._keys("leases", "channels")
        answers = [
            await self._read(shard, CHANNELS, keys, []) for shard in range(self.shards)
        ]
        return [channel.decode() for answer in answers for channel in answer]

    async def nodes(self) -> list[NodeState]:
        keys = self._keys("leases", "sizes")
        return [
            NodeState(
                *(shard, id.decode(), process.decode()),
                *(int(connections), int(memberships), float(remaining)),
            )
            for shard in range(self.shards)
            for id, process, connections, memberships, remaining in await self._read(
                shard, LEASES, keys, []
            )
        ]

    # For whoever operates it

    async def watch(self, channel: str, seconds: float) -> None:
        keys = self._keys("watchers")
        for shard in range(self.shards):
            await self._read(shard, WATCH, keys, [channel, seconds])

    async def verify(self, cursor: Any, mend: bool = False) -> tuple[Findings, Any]:
        self.attach()
        try:
            return await Verification(self, mend).page(cursor)
        finally:
            await self.detach()

    # Below

    #: channels_redis.core's prefix where commits write its groups, else "".
    _layer_prefix = ""
    _group_expiry = 0
    #: Milliseconds that the living nodes have for writing back what was lost.
    _rebuild = 2200

    def _answer(self, *answer: Any) -> Answer:
        """Return an answer of a commit; what was resumed comes behind it."""
        if len(answer) == 7:
            return _answer(*answer)
        id, record, owner = answer[7:]
        former = self.records.unpack(id, record)
        return replace(_answer(*answer[:7]), former=former, owner=owner.decode())

    async def _count_users(self, group: str) -> tuple[int, set[bytes], float]:
        """Count the users of a group, and name those who are on gone nodes only.

        A part of such members is read at a time. The last number is the share of them
        that was not evicted meanwhile: as many of the users are not counted any more.
        """
        shard, keys = self.shard(group), self._keys("index", "leases")
        read, node, cursor = 0, b"", b"0"
        members: dict[bytes, bytes] = {}
        connections: dict[bytes, int] = {}
        while True:
            answer = await self._read(shard, USERS, keys, [group, node, cursor])
            users, left, looked, node, cursor, *found = answer
            read += looked
            members.update(zip(found[::3], found[1::3]))
            connections.update(zip(found[1::3], map(int, found[2::3])))
            if not node:
                break
        there = Counter(members.values())
        gone = {user for user, number in there.items() if connections[user] <= number}
        return users, gone, min(left / read, 1) if read else 0

    async def _count_groups(self, shard: int) -> int:
        """Count all but those of the gone, which are looked at a page at a time."""
        groups, _, node, cursor, *found = await self._totals(shard, PAGE // 2)
        gone = set(found)
        while node:
            answer = await self._totals(shard, PAGE // 2, node, cursor)
            _, _, node, cursor, *found = answer
            gone.update(found)
        return int(groups) - len(gone)

    async def _totals(
        self, shard: int, limit: int = 0, node: bytes = b"", cursor: bytes = b"0"
    ) -> Any:
        keys = self._keys("index", "leases", "sizes")
        return await self._read(shard, TOTALS, keys, [limit, node, cursor])

    async def _scan(
        self, shard: int, key: str, cursor: int, size: int = PAGE
    ) -> tuple[int, Any]:
        page = self.client(shard).hscan(key, cursor, count=size)
        answer: tuple[int, Any] = await self._ask(page)
        return answer

    async def _read(
        self, shard: int, script: Script, keys: list[str], args: list[Any]
    ) -> Any:
        return await self._ask(self._call(shard, script, keys, args))

    async def _ask(self, call: Awaitable[Any]) -> Any:
        """Await an answer in time, with not too many questions at once."""
        return await self._in_time(self._in_turn(call))

    async def _in_turn(self, call: Awaitable[Any]) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._reads:
            self._reads[loop] = asyncio.Semaphore(READS)
        try:
            async with self._reads[loop]:
                return await call
        finally:
            if asyncio.iscoroutine(call):
                call.close()  # Its turn may not have come.

    async def _run(
        self, shard: int, script: Script, keys: list[str], args: list[Any]
    ) -> Any:
        return await self._in_time(self._call(shard, script, keys, args))

    async def _call(
        self, shard: int, script: Script, keys: list[str], args: list[Any]
    ) -> Any:
        args = [self.prefix, *args]
        command, line = script.pack(keys, args), self._line(shard)
        try:
            if not line.busy:
                return await line.call(command)
            return await borrow(self.client(shard), command)
        except BROKEN:
            logger.debug("A script goes redis-py's own way.", exc_info=True)
        return await script(self.client(shard), keys, args)

    def _line(self, shard: int) -> Line:
        """Return the connection that this event loop keeps."""
        loop, client = asyncio.get_running_loop(), self.client(shard)
        is_attached = loop in self._lines
        if not is_attached and loop not in self._borrowed:
            for other in list(self._borrowed):
                if other.is_closed():  # Nobody tells that a loop is over.
                    self._borrowed.pop(other, None)
            self._borrowed[loop] = {}
        lines = self._lines[loop] if is_attached else self._borrowed[loop]
        line = lines.get(shard)
        if line is None or line.borrowed and line.client is not client:
            line = lines[shard] = Line(client, TIMEOUT, borrowed=not is_attached)
        return line

    async def _in_time(self, call: Awaitable[Any]) -> Any:
        """Await an answer of the server; the only place that maps its errors."""
        try:
            return await in_time(call, TIMEOUT)
        except (RedisError, *LOST, asyncio.TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise StoreUnavailable(f"{self} did not answer: {why}.") from error

    async def _drop_idle(self, shard: int) -> None:
        """Close idle connections: where one was lost, the others may be dead too.

        redis-py 8 finds out only by sending, and each would fail somebody's call.
        """
        pool = self.client(shard).connection_pool
        await self._in_time(pool.disconnect(inuse_connections=False))
        line = self._line(shard)
        if not line.busy:
            await self._in_time(line.close())

    async def _subscribe(self, shard: int, node: Incarnation) -> None:
        """Hold a subscription on the node's name, a sign of a living connection."""
        await self._unsubscribe(node)
        self._alive[node] = subscription = self.client(shard).pubsub()
        channel = f"{self.prefix}alive:{node.id}"
        await self._in_time(_begin(subscription, channel))

    async def _fall_silent(self, node: Incarnation) -> None:
        """Return when the server knows that the node's subscription has ended."""
        subscription = self._alive.get(node)
        if subscription is not None:
            try:
                await self._in_time(_end(subscription))
            except StoreUnavailable:
                logger.debug("A subscription did not end in order.", exc_info=True)

    async def _unsubscribe(self, node: Incarnation) -> None:
        subscription = self._alive.pop(node, None)
        if subscription is not None:
            await subscription.aclose()  # type: ignore[no-untyped-call]

    def _keys(self, *keys: str) -> list[str]:
        return [self.prefix + key for key in keys]

    def __str__(self) -> str:
        return f"The membership store of {type(self.layer).__name__}"


class CoreStore(RedisStore):
    """For ``channels_redis.core.RedisChannelLayer``, with the layer's connections.

    Its commits write the layer's own groups too: ``<prefix>:group:<name>``, a ZSET
    of channel -> time, as group_add() of channels_redis 4.3 does.
    """

    def __init__(self, alias: str, layer: Any) -> None:
        super().__init__(alias, layer)
        self.prefix = f"{layer.prefix}:groups:"
        self.shards = layer.ring_size
        self._layer_prefix = layer.prefix
        self._group_expiry = layer.group_expiry

    def shard(self, group: str) -> int:
        shard: int = self.layer.consistent_hash(names.own_name(group))
        return shard

    def adds(self, shard: int, entry: Entry) -> bool:
        return self.host(entry.group) == shard

    def host(self, group: str) -> int:
        host: int = self.layer.consistent_hash(group)
        return host

    def client(self, shard: int) -> Redis:
        client: Redis = self.layer.connection(shard)
        return client


class PubSubStore(RedisStore):
    """For ``channels_redis.pubsub.RedisPubSubChannelLayer``, with its own clients."""

    layer_confirms = False

    def __init__(self, alias: str, layer: Any) -> None:
        super().__init__(alias, layer)
        config = settings.CHANNEL_LAYERS[alias].get("CONFIG", {})
        self._hosts = decode_hosts(config.get("hosts"))
        self.shards = len(self._hosts)
        self._clients: dict[asyncio.AbstractEventLoop, list[Redis]] = {}

    def shard(self, group: str) -> int:
        return _hash(names.own_name(group), self.shards)

    def host(self, group: str) -> int:
        return _hash(self.layer._get_group_channel_name(group), self.shards)

    async def new_channel(self, layer: Any, group: str) -> str:
        host = self.host(group)
        while True:  # One that is received from exists, by whatever name.
            channel = f"{layer.prefix}specific.{uuid.uuid4().hex}"
            if _hash(channel, self.shards) == host:
                return channel

    def attach(self) -> None:
        super().attach()
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            pools = [create_pool(host) for host in self._hosts]
            self._clients[loop] = [Redis(connection_pool=pool) for pool in pools]

    async def detach(self) -> None:
        await super().detach()
        loop = asyncio.get_running_loop()
        if loop not in self._attached:
            for client in self._clients.pop(loop, ()):
                await _close(client)

    def client(self, shard: int) -> Redis:
        return self._clients[asyncio.get_running_loop()][shard]

    async def _read(
        self, shard: int, script: Script, keys: list[str], args: list[Any]
    ) -> Any:
        self.attach()
        try:
            return await super()._read(shard, script, keys, args)
        finally:
            await self.detach()

    async def _scan(
        self, shard: int, key: str, cursor: int, size: int = PAGE
    ) -> tuple[int, Any]:
        self.attach()
        try:
            return await super()._scan(shard, key, cursor, size)
        finally:
            await self.detach()


def _check_hosts(hosts: Any) -> None:
    """Raise ImproperlyConfigured for a host that redis-py could not connect to.

    It would come to light only with the first connection. Addresses are not named,
    they may hold a password.
    """
    for number, host in enumerate(decode_hosts(hosts), 1):
        try:
            create_pool(host).make_connection()
        except Exception as error:  # redis-py raises this and that.
            raise ImproperlyConfigured(
                f"number {number} of its hosts cannot be used: {error}"
            ) from error


async def _close(client: Redis) -> None:
    """Close a client with its pool and with the connections that the pool has opened
    to Sentinels, which redis-py leaves open.
    """
    await client.aclose(close_connection_pool=True)
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()


async def _begin(subscription: PubSub, channel: str) -> None:
    """Subscribe, and return when the server has done it: the next commit asks."""
    await subscription.subscribe(channel)
    await _hear(subscription, "subscribe")


async def _end(subscription: PubSub) -> None:
    await subscription.unsubscribe()
    await _hear(subscription, "unsubscribe")


async def _hear(subscription: PubSub, kind: str) -> None:
    message = None
    while message is None or message["type"] != kind:
        message = await subscription.get_message(timeout=None)


def _answer(outcome: int, count: int, user_count: int, *rest: int) -> Answer:
    revision, told, connections, previous = rest
    about = revision, told == 1, connections, previous
    return Answer(OUTCOMES[outcome], count, user_count, *about)


def _counts(flat: Sequence[Any]) -> list[tuple[str, int]]:
    """Return pairs of a script's {group, count, group, count, ...}."""
    return [(name.decode(), int(count)) for name, count in zip(flat[::2], flat[1::2])]


def _pack(value: Any) -> bytes:
    """Return msgpack as Redis' cmsgpack reads it: it knows no binary type."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def _hash(name: str, shards: int) -> int:
    """Spread names over shards as channels_redis does (utils._consistent_hash)."""
    from channels_redis.utils import _consistent_hash

    shard: int = _consistent_hash(name, shards)
    return shard


COMMIT = load("commit")
COUNT = load("count")
CHANNELS = load("channels")
EVICT = load("evict")
GROUPS = load("groups")
LEASES = load("leases")
MEMBER = load("member")
NODES = load("nodes")
RANKING = load("ranking")
REGISTER = load("register")
RELEASE = load("release")
RENEW = load("renew")
SUMMARIES = load("summaries")
TOTALS = load("totals")
USER = load("user")
USERS = load("users")
WATCH = load("watch")

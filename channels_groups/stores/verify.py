"""Comparing the books of a Redis store, a page at a time.

Each page is compared in scripts that read a limited number of records, so nobody
waits for it; within one, nothing changes. What is too large for a script is summed
up in pages, again and again while it changes. What is off by the same each time is a
disagreement, and is mended by adding that, which is right whatever changes meanwhile.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Iterable, Iterator, Sequence

import msgpack

from .base import PAGE, Disagreement, Findings, StoreRebuilding
from .scripts import glob, load

if TYPE_CHECKING:
    from .redis import RedisStore

#: Records that one script reads, or a few more: it takes less than two milliseconds.
LIMIT = 300
#: Subjects of one script.
SUBJECTS = 50
#: How often what changes meanwhile is summed up.
ATTEMPTS = 3

#: The keys that verify.lua compares the others with.
BOOKS = ("leases", "index", "sizes", "channels", "told", "rebuilding", "void")

#: The kinds of keys that SCAN finds and verify.lua looks at.
KINDS = (
    *("nodes", "users", "members", "answer", "node"),
    *("user", "user#", "lingering", "taken"),
)

#: What verify.lua finds; 0 and 1 are its numbers.
SENTENCES = {
    "count": "The index counts {0} members, the processes have {1}.",
    "users": "Its users are counted wrongly ({0} are listed, {1} are there).",
    "told": "A process counts {0} of its {1} members as wanting to be told.",
    "empty": "It is listed for a process that has no members in it.",
    "unlisted": "A process has members in it and does not list it as its own.",
    "unknown": "A process has members in it that nothing counts.",
    "leaseless": "A process without a lease has members.",
    "size": "A process counts {0} memberships of its own, its groups have {1}.",
    "deaf": "A process with members in it is not in the layer's group.",
    "dead": "A channel of no process is in the layer's group.",
    "lost": "A member is not found by its user.",
    "hidden": "Somebody lingers in it and could not come back.",
    "endless": "Somebody lingers in it without an end.",
    "late": "Those who linger are taken for gone before their end.",
    "stray": "Something of it is left over.",
}

#: Those of them that are hashes of what leads to members.
LEADING = ("user", "user#", "lingering")

Subject = tuple[str, "str | bytes"]
#: What has to be added to each of some numbers to make it right.
Offs = dict[bytes, int]


class Verification:
    """One page of RedisStore.verify(): what it looks at depends on the cursor."""

    def __init__(self, store: RedisStore, mend: bool) -> None:
        self._store = store
        self._mend = mend
        self._found: list[Disagreement] = []

    async def page(self, cursor: Any) -> tuple[Findings, Any]:
        """Return the findings of a page and the next cursor: (shard, step, place)."""
        shard, step, place = cursor or (0, 0, 0)
        steps = (
            *(self._keys, self._index, self._told, self._due),
            *(self._nodes, self._layer),
        )
        subjects, place = await steps[step](shard, place)
        await self._look(shard, subjects)
        findings = Findings(len(subjects), self._found)
        if place:
            return findings, (shard, step, place)
        if step + 1 < len(steps):
            return findings, (shard, step + 1, 0)
        return findings, (shard + 1, 0, 0) if shard + 1 < self._store.shards else None

    # What there is to look at, a page at a time

    async def _keys(self, shard: int, place: int) -> tuple[Sequence[Subject], int]:
        prefix = self._store.prefix
        place, keys = await self._find(shard, place, prefix)
        parts = (key[len(prefix) :].partition(":") for key in keys)
        subjects = [(kind, rest) for kind, _, rest in parts if kind in KINDS]
        await self._look_at_large_hashes(shard, subjects)
        return subjects, place

    async def _index(self, shard: int, place: int) -> tuple[Sequence[Subject], int]:
        client, key = self._store.client(shard), f"{self._store.prefix}index"
        place, page = await self._ask(client.zscan(key, place, count=PAGE))
        for group, count in page:
            if count > LIMIT:
                await self._look_at_large_group(shard, group.decode())
        return [("group", group.decode()) for group, _ in page], place

    async def _told(self, shard: int, place: int) -> tuple[Sequence[Subject], int]:
        return await self._entries(shard, "told", place)

    async def _due(self, shard: int, place: int) -> tuple[Sequence[Subject], int]:
        return await self._entries(shard, "due", place)

    async def _entries(
        self, shard: int, name: str, place: int
    ) -> tuple[Sequence[Subject], int]:
        client, key = self._store.client(shard), f"{self._store.prefix}{name}"
        place, page = await self._ask(client.zscan(key, place, count=PAGE))
        return [(name, entry.decode()) for entry, _ in page], place

    async def _nodes(self, shard: int, place: int) -> tuple[Sequence[Subject], int]:
        client, prefix = self._store.client(shard), self._store.prefix
        place, page = await self._ask(client.zscan(f"{prefix}leases", place))
        nodes = [node.decode() for node, _ in page]
        for node in nodes:
            if await self._ask(client.hlen(f"{prefix}node:{node}")) > LIMIT:
                await self._look_at_large_node(shard, node)
        return [("node", node) for node in nodes], place

    async def _layer(self, shard: int, place: int) -> tuple[Sequence[Subject], int]:
        """Look at the library's own groups in the layer, where they are in Redis."""
        if not self._store._layer_prefix:
            return [], 0
        prefix = f"{self._store._layer_prefix}:group:"
        place, keys = await self._find(shard, place, f"{prefix}groups.")
        sizes = await self._sizes(shard, "zcard", keys)
        for key, size in zip(keys, sizes):
            if size > LIMIT:
                await self._look_at_large_layer_group(shard, key, key[len(prefix) :])
        return [("layer", key[len(prefix) :]) for key in keys], place

    async def _find(self, shard: int, place: int, prefix: str) -> tuple[int, list[str]]:
        client = self._store.client(shard)
        call = client.scan(place, match=glob(prefix), count=PAGE)
        place, keys = await self._ask(call)
        return place, [key.decode() for key in keys]

    # Looking at it

    async def _look(self, shard: int, subjects: Sequence[Subject]) -> None:
        while subjects:
            done = await self._run(shard, subjects[:SUBJECTS], self._mend)
            subjects = subjects[done:]

    async def _run(self, shard: int, subjects: Sequence[Subject], mend: bool) -> int:
        store = self._store
        keys = [store.prefix + name for name in BOOKS]
        args = [store._layer_prefix, store._group_expiry, "1" if mend else "", LIMIT]
        args += [part for subject in subjects for part in subject]
        answer = await store._read(shard, VERIFY, keys, args)
        if answer[0] == b"rebuilding":
            raise StoreRebuilding
        for what, *about, one, two in answer[2]:
            group, node = (part.decode() or None for part in about)
            sentence = SENTENCES[what.decode()].format(one.decode(), two.decode())
            self._found.append(Disagreement(sentence, shard, group, node))
        return int(answer[1])

    async def _look_at_large_hashes(
        self, shard: int, subjects: list[tuple[str, str]]
    ) -> None:
        """Look at what leads to the members of a user, or to many who linger."""
        subjects = [one for one in subjects if one[0] in LEADING]
        keys = [f"{kind}:{rest}" for kind, rest in subjects]
        sizes = await self._sizes(shard, "hlen", [self._store.prefix + k for k in keys])
        for key, (kind, rest), size in zip(keys, subjects, sizes):
            if size <= LIMIT:
                continue
            async for page in self._pages(shard, self._store.prefix + key):
                if kind == "lingering":
                    look = [("former", _place(user, rest.encode())) for user in page]
                else:
                    look = [("place", _place(key.encode(), at)) for at in page]
                await self._look(shard, look)

    async def _look_at_large_layer_group(self, shard: int, key: str, name: str) -> None:
        place: int | None = None
        while place != 0:
            call = self._store.client(shard).zscan(key, place or 0, count=LIMIT // 2)
            place, page = await self._ask(call)
            channels = [channel for channel, _ in page]
            packed = msgpack.packb([name, channels], use_bin_type=False)
            await self._look(shard, [("channels", packed)])

    async def _sizes(self, shard: int, command: str, keys: list[str]) -> list[int]:
        async with self._store.client(shard).pipeline(transaction=False) as pipeline:
            for key in keys:
                getattr(pipeline, command)(key)
            sizes: list[int] = await self._ask(pipeline.execute())
            return sizes

    async def _look_at_large_group(self, shard: int, group: str) -> None:
        listed = counted = 0

        async def read() -> Offs:
            nonlocal listed, counted
            written, there = await self._users(shard, group)
            listed, counted = len(written), len(there)
            return {
                user: there[user] - written[user]
                for user in written | there
                if there[user] != written[user]
            }

        offs = await _steady(read)
        if offs:
            what = SENTENCES["users"].format(listed, counted)
            self._found.append(Disagreement(what, shard, group=group))
            await self._add(shard, f"users:{group}", offs)
        await self._look_at_members(shard, group)

    async def _look_at_members(self, shard: int, group: str) -> None:
        for node in await self._group_nodes(shard, group):
            async for page in self._pages(shard, self._members_key(group, node)):
                places = (f"{len(id)}:{id.decode()}{group}" for id in page)
                await self._look(shard, [("member", f"{node}:{at}") for at in places])

    async def _look_at_large_node(self, shard: int, node: str) -> None:
        counted = there = 0
        empty: list[str] = []

        async def read() -> Offs:
            nonlocal counted, there
            counted, there = await self._size(shard, node, empty)
            return {node.encode(): there - counted} if there != counted else {}

        offs = await _steady(read)
        if offs:
            what = SENTENCES["size"].format(counted, there)
            self._found.append(Disagreement(what, shard, node=node))
            await self._add(shard, "sizes", offs)
        parts = dict.fromkeys(empty)
        await self._look(shard, [("part", f"{group}:{node}") for group in parts])

    async def _add(self, shard: int, name: str, offs: Offs) -> None:
        """Mend numbers in a hash, some in each script, whatever changes meanwhile."""
        if not self._mend:
            return
        store, left = self._store, list(offs.items())
        keys = [store.prefix + key for key in (name, "rebuilding", "void")]
        while left:
            args = [part for off in left[:PAGE] for part in off]
            if await store._read(shard, ADD, keys, args) == b"rebuilding":
                raise StoreRebuilding
            del left[:PAGE]

    async def _users(
        self, shard: int, group: str
    ) -> tuple[Counter[bytes], Counter[bytes]]:
        """Return how many connections each user has, as written and as counted."""
        there: Counter[bytes] = Counter()
        for node in await self._group_nodes(shard, group):
            async for page in self._pages(shard, self._members_key(group, node)):
                there.update(_users_of(page.values()))
        written: Counter[bytes] = Counter()
        async for page in self._pages(shard, f"{self._store.prefix}users:{group}"):
            written.update({user: int(number) for user, number in page.items()})
        return written, there

    async def _group_nodes(self, shard: int, group: str) -> list[str]:
        key = f"{self._store.prefix}nodes:{group}"
        nodes = await self._ask(self._store.client(shard).hkeys(key))
        return [node.decode() for node in nodes]

    def _members_key(self, group: str, node: str) -> str:
        return f"{self._store.prefix}members:{group}:{node}"

    async def _size(self, shard: int, node: str, empty: list[str]) -> tuple[int, int]:
        """Return the number of memberships, as written and as counted.

        ``empty``: where to put groups of the node that have none.
        """
        client, prefix = self._store.client(shard), self._store.prefix
        there = 0
        async for page in self._pages(shard, f"{prefix}node:{node}"):
            keys = [f"{prefix}members:{group.decode()}:{node}" for group in page]
            sizes = await self._sizes(shard, "hlen", keys)
            there += sum(sizes)
            empty += (group.decode() for group, size in zip(page, sizes) if not size)
        counted = await self._ask(client.hget(f"{prefix}sizes", node))
        return int(counted or 0), there

    async def _pages(self, shard: int, key: str) -> Any:
        place: int | None = None
        while place != 0:
            call = self._store.client(shard).hscan(key, place or 0, count=PAGE)
            place, page = await self._ask(call)
            yield page

    async def _ask(self, call: Awaitable[Any]) -> Any:
        return await self._store._ask(call)


async def _steady(read: Callable[[], Awaitable[Offs]]) -> Offs:
    """Return what is off by the same each time."""
    offs = await read()
    for _ in range(ATTEMPTS - 1):
        if not offs:
            break
        again = await read()
        offs = {name: off for name, off in offs.items() if again.get(name) == off}
    return offs


def _place(first: bytes, rest: bytes) -> bytes:
    """Join two texts as common.lua does in a place."""
    return b"%d:%b%b" % (len(first), first, rest)


def _users_of(records: Iterable[bytes]) -> Iterator[bytes]:
    for record in records:
        digits, _, rest = record.partition(b":")
        if digits:
            yield rest[: int(digits)]


VERIFY, ADD = load("verify"), load("add")

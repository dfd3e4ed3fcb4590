"""The processes, the store and the clients of a storm, and what ought to be so."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..helpers.cluster import Cluster, Node
from ..helpers.proxy import TcpProxy
from ..helpers.server import RedisServer
from .ledger import Ledger, Unknowable
from .plan import LEASE, Step
from .visitors import Slot, Visitor

APPLICATION = "tests.helpers.application:application"
PREFIX = "demo"
#: Seconds for one question to a process.
QUESTION = 5
#: Seconds for a message to be heard.
HEARING = 1.5
POLL = 0.05

#: room -> name of each member -> its id
Truth = dict[str, dict[str, str]]

#: Two of them always go through no proxy, so one can be cut off.
SERVERS = (("daphne", "uvicorn", "daphne"), ("uvicorn", "daphne", "uvicorn"))


class World:
    """Three processes on one store, one of them through a proxy, and their clients.

    It is the same for the same seed, but for the times at which things happen.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int = 0,
        layer: str = "core",
        clients: int = 240,
        broken: str = "",
    ) -> None:
        self.directory = directory
        self.redis = RedisServer()
        self.proxy: TcpProxy
        self.cluster: Cluster
        self.cut_off: Node
        self.slots: list[Slot] = []
        self.serving: set[Node] = set()
        self.violations: list[str] = []
        #: What is worth knowing about this round.
        self.notes: list[str] = []
        self.unknowable = Unknowable()
        self.ledger: Ledger
        self.fault_ended = 0.0
        self._seed = seed
        self._layer = layer
        self._clients = clients
        self._broken = broken
        self._restarts: list[asyncio.Task[None]] = []
        self._expected: list[tuple[str, list[tuple[Visitor, int]]]] = []
        self._probes = itertools.count()
        self._read_logs: dict[Node, int] = defaultdict(int)
        self._executor = ThreadPoolExecutor(64)

    async def start(self) -> None:
        """Start everything; the clients are not connected yet."""
        asyncio.get_running_loop().set_default_executor(self._executor)
        await asyncio.to_thread(self._start_processes)

    async def close(self) -> None:
        """End everything."""
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.to_thread(self.cluster.close)
        await asyncio.gather(*(slot.leave() for slot in self.slots))
        self.proxy.close()
        self.redis.close()

    def _start_processes(self) -> None:
        self.redis.start()
        self.proxy = TcpProxy(self.redis.url)
        self.proxy.start()
        env = {
            "GROUP_LEASE": str(LEASE),
            "GROUP_OUTBOX": "100",
            "PYTHONASYNCIODEBUG": "",
            "CHANNEL_PREFIX": PREFIX,
            "BROKEN": self._broken,
        }
        self.cluster = Cluster(
            self.redis.url,
            self.directory,
            layer=self._layer,
            env=env,
            application=APPLICATION,
        )
        cut_off = self._seed % 3
        for number, server in enumerate(SERVERS[self._seed % 2]):
            url = self.proxy.url if number == cut_off else None
            self.cluster.add(server, redis_url=url)
        for node in self.cluster.nodes:
            node.wait_ready()
        self.cut_off = self.cluster.nodes[cut_off]
        self.serving = set(self.cluster.nodes)
        nodes = itertools.cycle(self.cluster.nodes)
        self.slots = [
            Slot(number, next(nodes), self.serving, self._expect)
            for number in range(self._clients)
        ]
        paths = [self.directory / node.name for node in self.cluster.nodes]
        self.ledger = Ledger(path / "events.jsonl" for path in paths)

    # What happens

    async def fill(self, homes: Iterable[str]) -> None:
        """Connect every client that is not connected."""
        pairs = zip(self.slots, homes)
        await asyncio.gather(*(slot.enter(room) for slot, room in pairs))

    async def take(self, steps: Iterable[Step]) -> None:
        """Let the clients do their steps, each in its time; wait for all answers."""
        began = time.monotonic()
        tasks = []
        for step in steps:
            await asyncio.sleep(began + step.at - time.monotonic())
            slot = self.slots[step.slot]
            tasks.append(asyncio.create_task(slot.take(step), name=step.verb))
        await asyncio.gather(*tasks)

    async def learn_rooms(self) -> None:
        """Ask every client's process where it is."""
        await asyncio.gather(*(slot.learn_room() for slot in self.slots))

    def note_killed(self, nodes: Iterable[Node]) -> None:
        """Note what dies with processes that are killed now, amid traffic."""
        for node in nodes:
            self.unknowable.pids.add(node.pid)
            for slot in self.slots:
                if slot.node is node:
                    self.unknowable.leaves |= slot.missing_leaves()
                    self.unknowable.joins += slot.missing_joins()

    def ended(self) -> None:
        """Note that the fault is over, and all has to be right again soon."""
        self.fault_ended = time.monotonic()

    def start_again(self, nodes: Iterable[Node]) -> None:
        """Start processes again in the background, see `started_again()`."""
        for node in nodes:
            self.serving.discard(node)
            task = asyncio.create_task(self._start_again(node))
            self._restarts.append(task)

    async def started_again(self) -> None:
        """Wait until all processes serve."""
        restarts, self._restarts = self._restarts, []
        await asyncio.gather(*restarts)

    async def _start_again(self, node: Node) -> None:
        await asyncio.to_thread(node.restart)
        self.serving.add(node)

    # What is so

    def truth(self) -> Truth:
        """Return who is where, as the clients know it."""
        rooms: Truth = defaultdict(dict)
        for slot in self.slots:
            visitor = slot.open
            if visitor is not None and visitor.room is not None:
                rooms[visitor.room][str(visitor.name)] = str(visitor.id)
        return dict(rooms)

    def members(self) -> dict[str, set[str]]:
        """Return the ids in each room."""
        return {room: set(ids.values()) for room, ids in self.truth().items()}

    def ids_on(self, node: Node) -> set[str]:
        """Return the ids that a process ever gave to its clients."""
        return {id for slot in self.slots if slot.node is node for id in slot.names}

    def strangers(self) -> set[str]:
        """Return the ids in killed processes of clients that were gone too soon.

        Nobody knows of a leave of theirs that died with the process.
        """
        known = {id for slot in self.slots for id in slot.names}
        return self.ledger.joined_by(self.unknowable.pids) - known

    async def differences(self) -> list[str]:
        """Return where the serving processes' answers are not the truth."""
        nodes = list(self.serving)
        answers = await asyncio.gather(*(ask(node, "rooms/") for node in nodes))
        truth = self.truth()
        return [
            f"{node.name}: {difference}"
            for node, answer in zip(nodes, answers)
            for difference in compare(answer, truth)
        ]

    async def unheard(self) -> list[str]:
        """Let one member of each room speak; return who did not hear it."""
        speakers = {}
        for slot in self.slots:
            if slot.open and slot.open.room is not None:
                speakers[slot.open.room] = slot.open
        probe = f"probe {next(self._probes)}"
        for room, speaker in speakers.items():
            await speaker.say(f"{probe} {room}")
        deadline = time.monotonic() + HEARING
        while unheard := list(self._deaf_to(probe)):
            if time.monotonic() > deadline:
                return unheard
            await asyncio.sleep(0.01)
        return []

    def _deaf_to(self, probe: str) -> Iterator[str]:
        for slot in self.slots:
            visitor = slot.open
            if visitor is None:
                continue
            heard = {text: n for text, n in visitor.heard.items() if probe in text}
            wanted = {} if visitor.room is None else {f"{probe} {visitor.room}": 1}
            if heard != wanted:
                yield f"{visitor!r} on {slot.node.name} heard {heard}, not {wanted}"

    def check_hearing(self, harmless: bool, ordered: bool) -> None:
        """Look at all that was heard: nothing lost if harmless, the order kept."""
        for slot in self.slots:
            visitor = slot.visitor
            if visitor is not None and ordered:
                self.violations += out_of_order(visitor)
        for text, members in self._expected if harmless else ():
            for visitor, operations in members:
                stayed = visitor.is_open and visitor.operations == operations
                if stayed and visitor.heard[text] != 1:
                    self.violations.append(
                        f"{visitor!r} heard {text} {visitor.heard[text]} times"
                    )
        self._expected.clear()
        for slot in self.slots:
            if slot.visitor is not None:
                slot.visitor.heard.clear()

    def _expect(self, speaker: Visitor, text: str) -> None:
        """Remember who has to hear what is said now."""
        if speaker.room is None:
            return
        members = [
            (slot.open, slot.open.operations)
            for slot in self.slots
            if slot.open and slot.open.room == speaker.room and is_idle(slot, speaker)
        ]
        self._expected.append((text, members))

    def complaints(self) -> list[str]:
        """Return what the logs have said since the last time that nobody asked for."""
        found = []
        for node in self.cluster.nodes:
            log = node.log
            new, self._read_logs[node] = log[self._read_logs[node] :], len(log)
            found += [f"{node.name}: {block}" for block in unexpected(new)]
        return found

    def leftovers(self) -> list[str]:
        """Return what is left in the store that should not be, without clients."""
        with self.redis.client() as client:
            keys = list(client.scan_iter(match="*", count=1000))
            lives = {key: client.ttl(key) for key in keys}
            channels = client.pubsub_channels("*")
        # What an evicted process may yet ask for, and messages to the dead, expire.
        # channels_redis core leaves what a process was taking when it was killed.
        kept = [
            key
            for key, life in lives.items()
            if not 0 <= life <= 600 and not key.endswith("$inflight")
        ]
        return [f"key {key}" for key in kept] + [f"channel {one}" for one in channels]

    async def remains(self) -> list[str]:
        """Return what is left of the library in processes without clients."""
        found = []
        for node in self.serving:
            tasks = await ask(node, "tasks/")
            if any(tasks.values()):
                found.append(f"{node.name} has {tasks}")
        return found


def is_idle(slot: Slot, speaker: Visitor) -> bool:
    """Whether a slot's client will stay where it is while somebody speaks."""
    return not slot.busy or slot.visitor is speaker


async def ask(node: Node, path: str) -> Any:
    """Ask one of the questions of tests.helpers.application; None: no answer."""
    return await asyncio.to_thread(_ask, f"{node.url}/test/{path}")


def _ask(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=QUESTION) as response:
            return json.load(response)
    except OSError as error:
        return {"error": str(error)}


def compare(answer: Any, truth: Truth) -> Iterator[str]:
    """Yield where what one process says is not the truth."""
    if "error" in answer:
        yield f"no answer: {answer['error']}"
        return
    rooms = answer["rooms"]
    for name in {*rooms, *truth}:
        if name not in rooms:
            yield f"{name!r} is not listed, with {sorted(truth[name])} in it"
        else:
            yield from compare_room(name, rooms[name], truth.get(name, {}))
    if answer["group_count"] != len(truth):
        yield f"{answer['group_count']} groups, not {len(truth)}"
    memberships = sum(map(len, truth.values()))
    if answer["membership_count"] != memberships:
        yield f"{answer['membership_count']} memberships, not {memberships}"


def compare_room(name: str, room: Any, members: dict[str, str]) -> Iterator[str]:
    listed = room["members"]
    missing = members.keys() - set(listed.values())
    extra = {id: one for id, one in listed.items() if one not in members}
    if missing or extra:
        yield f"{name!r} lacks {sorted(missing)} and has {extra}"
    wrong = {id: one for id, one in listed.items() if members.get(one) != id}
    if wrong and not extra:
        yield f"{name!r} has other ids: {wrong}"
    users = {one.partition(".")[0] for one in members}
    for what, said, true in (
        ("listed", len(listed), len(members)),
        ("count", room["count"], len(members)),
        ("user_count", room["user_count"], len(users)),
        ("users", set(room["users"]), users),
        ("exists", room["exists"], bool(members)),
    ):
        if said != true:
            yield f"{name!r} {what}: {said}, not {true}"


def out_of_order(visitor: Visitor) -> Iterator[str]:
    """Yield where a visitor heard somebody's words in another order than said."""
    last: dict[str, int] = {}
    for text in visitor.heard:
        speaker, colon, number = text.rpartition(":")
        if not colon:
            continue
        if int(number) < last.get(speaker, 0):
            yield f"{visitor!r} heard {text} after {last[speaker]}"
        last[speaker] = int(number)


#: A log's block is a traceback or one line; these are what faults bring about.
HARMLESS = re.compile(
    r"Deliberate|No handler for message type nobody\.handles\.this"
    # channels_redis 4.3: a task of its own that it does not await, its log of lost
    # connections, and what it raises where Channels opens a consumer's channel.
    r"|\b_clean_receive_backup|in _do_receiving|in new_channel|cleaning-up channel"
    # redis-py 8.1: a connection that broke while it was being made.
    r"|unclosed <StreamWriter"
)
#: Lines that belong to the next one.
OPENERS = ("Traceback", "During handling", "The above exception")
HEADER = re.compile(
    r"never retrieved$|^future: |^Exception in ASGI|cleaning-up channel:$"
    r"|^Exception ignored in"
)
TROUBLE = re.compile(
    r"Traceback|Warning|\bCRITICAL\b|never (?:awaited|retrieved)"
    r"|Task was destroyed|Exception ignored|tries again\.|dropped\.$"
)


def unexpected(log: str) -> list[str]:
    """Return the blocks of a log that speak of trouble which no fault explains."""
    blocks: list[list[str]] = []
    for line in log.splitlines():
        if blocks and (line[:1] in ("", " ", "\t") or is_inside(blocks[-1])):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    texts = ["\n".join(block) for block in blocks]
    return [one for one in texts if TROUBLE.search(one) and not HARMLESS.search(one)]


def is_inside(block: list[str]) -> bool:
    """Whether a traceback has begun in a block and its last line is still to come."""
    last = block[-1]
    if last.startswith(OPENERS) or HEADER.search(last):
        return True
    has_begun = any(line.startswith("Traceback") for line in block)
    return has_begun and last[:1] in ("", " ", "\t")

"""The clients and processes of the convergence test, and what happens to them."""

import asyncio
import json
import random
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlencode

import websockets.asyncio.client
import websockets.exceptions
from websockets.exceptions import ConnectionClosed

from ..helpers.cluster import Cluster
from ..helpers.eventually import aeventually
from ..helpers.views import View

GROUPS = ["one", "two", "three"]
GRACE, LEASE = 2, 3
ENV = {
    "CHANNEL_PREFIX": "convergence",
    "GROUP_LEASE": str(LEASE),
    "GROUP_GRACE": str(GRACE),
    "PYTHONASYNCIODEBUG": "",  # It would be a test of the machine.
}
#: Seconds for all orders to be answered, and for the dead to be evicted.
PATIENCE = 60


class Visitor:
    """One client: what it is in, and what it believes of it."""

    def __init__(self, name):
        self.name = name
        self.node = None
        #: As groups.js: what a new connection names.
        self.ids = {}
        self.groups = set()
        #: What of its joins and leaves is to be told of, and whether that is certain.
        self.told = Counter()
        self.was_late = False
        self.mood = 0
        self.views = {}
        self.socket = None
        self.reading = None
        self.number = 0
        self.done = 0
        self.gaps = 0
        self.news = asyncio.Event()

    async def connect(self, node):
        """Connect to a process, in no group."""
        await self.close()
        self.groups, self.ids = set(), {}
        await self.open(node)

    async def open(self, node):
        query = [
            ("user", self.name),
            *(("group_former", id) for id in self.ids.values()),
        ]
        url = f"ws://127.0.0.1:{node.port}/?{urlencode(query)}"
        socket = await websockets.asyncio.client.connect(
            url, proxy=None, compression=None, open_timeout=30, ping_interval=None
        )
        # Until now the former connection was the one to be listened to.
        self.socket, self.node, self.views, self.mood = socket, node, {}, 0
        self.number = self.done = 0
        self.reading = asyncio.create_task(self.read(self.socket))

    async def reload(self, node, seen):
        """Enter its groups by a new connection, whether the old one's end is seen."""
        await self.until_shown()
        socket, reading, began = self.socket, self.reading, time.monotonic()
        try:
            if seen:
                await socket.close()
            await self.open(node)
            for group in sorted(self.groups):
                await self.order(kind="join", group=group)
        except (OSError, websockets.exceptions.InvalidHandshake):
            pass  # Killed meanwhile.
        self.was_late |= time.monotonic() > began + GRACE / 2
        await socket.close()
        await asyncio.wait([reading])

    async def until_shown(self):
        """Wait until it knows its id in each group."""
        while self.is_open and not self.ids.keys() >= self.groups:
            await asyncio.sleep(0.01)

    async def close(self):
        if self.reading:
            await self.socket.close()
            await asyncio.wait([self.reading])
            self.reading = None

    @property
    def is_open(self):
        return self.reading is not None and not self.reading.done()

    async def order(self, **order):
        """Send an order and wait until it is carried out, or the process is gone."""
        self.number += 1
        number = self.number
        try:
            await self.socket.send(json.dumps({"number": number, "order": order}))
        except ConnectionClosed:
            return
        while self.is_open and self.done < number:
            self.news.clear()
            waiting = asyncio.create_task(self.news.wait())
            await asyncio.wait(
                [waiting, self.reading], return_when=asyncio.FIRST_COMPLETED
            )
            waiting.cancel()

    async def read(self, socket):
        try:
            async for text in socket:
                if socket is self.socket:
                    self.take(json.loads(text))
        except ConnectionClosed:
            pass

    def take(self, message):
        if message["type"] == "done":
            self.done = message["number"]
            if "groups" in message:  # It was refused.
                self.groups = set(message["groups"])
            self.news.set()
        elif message["type"] == "group.left":
            self.views.pop(message["group"], None)
            self.ids.pop(message["group"], None)
        else:
            if "id" in message:
                self.ids[message["group"]] = message["id"]
            view = self.views.setdefault(message["group"], View())
            view.take(message)

    def errors(self, truth):
        """Return what it believes and is not true."""
        errors = []
        if set(self.views) != self.groups:
            errors.append(f"{self.name} sees {set(self.views)}, is in {self.groups}")
        for group, view in self.views.items():
            members, count, user_count = view.facts
            members = {id: list(facts) for id, facts in (members or {}).items()}
            if [members, count, user_count] != truth.get(group):
                errors.append(f"{self.name} is wrong about {group}")
            if view.gaps:
                errors.append(f"{self.name} was shown a gap in {group}")
        return errors


@dataclass
class Result:
    seed: int
    kills: int
    freezes: int
    members: int
    seconds: float
    faults: dict
    wrong: list = field(default_factory=list)

    def __str__(self):
        faults = " ".join(f"{key} {value:.0%}" for key, value in self.faults.items())
        end = f"right after {self.seconds:.2f} s"
        if self.wrong:
            end = f"{len(self.wrong)} WRONG: {self.wrong[:3]}, {self.wrong[-1]}"
        return (
            f"seed {self.seed}: {faults}, {self.kills} killed, "
            f"{self.freezes} frozen, {self.members} memberships: {end}"
        )


class World:
    """Three processes and their clients."""

    def __init__(self, redis_url, directory, layer, clients):
        self.cluster = Cluster(
            redis_url,
            directory,
            layer=layer,
            env=ENV,
            application="tests.convergence.application:application",
        )
        # Some users have several connections.
        self.reloads = False
        #: Of how many it was certain what was to be told, in all seeds.
        self.certain = 0
        self.visitors = [Visitor(f"user{n * 2 // 3}") for n in range(clients)]

    async def __aenter__(self):
        start = asyncio.to_thread(self.cluster.start, "uvicorn", "daphne", "uvicorn")
        await start
        return self

    async def __aexit__(self, *exc):
        await asyncio.gather(*(one.close() for one in self.visitors))
        await asyncio.to_thread(self.cluster.close)

    async def play(self, seed, orders, within):
        """Play one seed: chaos, then quiet, then everybody must be right."""
        dice = random.Random(seed)
        self.reloads = seed % 2 == 1
        faults = {
            "lost": dice.choice([0, 0.1, 0.3, 1]),
            "late": dice.choice([0, 0.3, 0.7]),
            "twice": dice.choice([0, 0.2]),
            "forgotten": dice.choice([0, 0, 0.5, 1]),
        }
        for node in self.cluster.nodes:
            await self.ask(node, "faults", seed=seed, **faults)
        await self.connect_lost(dice)
        for one in self.visitors:
            one.told, one.was_late = Counter(), False
        victims = dice.sample(self.cluster.nodes, dice.choice([0, 0, 1, 1, 2]))
        deaths = [self.kill(node, dice.uniform(0.2, 2)) for node in victims]
        # In every third seed another one is taken for dead, and comes back.
        living = [node for node in self.cluster.nodes if node not in victims]
        frozen = random.Random(seed).sample(living, int(seed % 3 == 2))
        absences = [self.freeze(node, dice.uniform(0.2, 2)) for node in frozen]
        visits = [
            self.visit(one, random.Random(f"{seed} {i}"), orders / len(self.visitors))
            for i, one in enumerate(self.visitors)
        ]
        await asyncio.gather(*visits, *deaths, *absences)
        truth = await self.quiet()
        began = time.monotonic()
        wrong = await self.wait_until_right(truth, within)
        members = sum(len(group[0]) for group in truth.values())
        seconds = time.monotonic() - began
        if wrong and not await self.wait_until_right(truth, 10):
            wrong.append(f"right only after {time.monotonic() - began:.2f} s")
        if not victims and not frozen:
            wrong += await self.find_flickers(within)
        harmed = len(victims), len(frozen)
        result = Result(seed, *harmed, members, seconds, faults, wrong)
        await asyncio.gather(*(asyncio.to_thread(self.restart, n) for n in victims))
        return result

    async def visit(self, visitor, dice, orders):
        """Let one client do something now and then for three seconds."""
        orders = int(orders) + (dice.random() < orders % 1)
        for _ in range(orders):
            await asyncio.sleep(dice.uniform(0, 3 / orders))
            if not visitor.is_open:
                return
            await self.act(visitor, dice)

    async def act(self, visitor, dice):
        kinds = ["join", "join", "leave", "update"]
        kind = dice.choice([*kinds, "reload", "reload"] if self.reloads else kinds)
        if kind == "reload":
            node = dice.choice(self.cluster.running)
            await visitor.reload(node, seen=dice.random() < 0.5)
            return
        if kind == "update":
            visitor.mood += 1
            await visitor.order(kind="update", mood=visitor.mood)
            return
        group = dice.choice(GROUPS)
        visitor.told[kind, group] += (group in visitor.groups) == (kind == "leave")
        if kind == "join":
            visitor.groups.add(group)
        else:
            visitor.groups.discard(group)
        await visitor.order(kind=kind, group=group)

    async def kill(self, node, after):
        await asyncio.sleep(after)
        await asyncio.to_thread(node.kill)

    async def freeze(self, node, after):
        await asyncio.sleep(after)
        node.freeze()
        try:
            await asyncio.sleep(LEASE + 1)
        finally:
            node.thaw()

    def restart(self, node):
        node.start()
        node.wait_ready()

    async def connect_lost(self, dice):
        """Connect whoever has no connection, a few at a time."""
        lost = [one for one in self.visitors if not one.is_open]
        for start in range(0, len(lost), 20):
            some = lost[start : start + 20]
            await asyncio.gather(
                *(one.connect(dice.choice(self.cluster.nodes)) for one in some)
            )

    async def quiet(self):
        """Wait until the store has just those who are in, and return what it has."""
        living = [one for one in self.visitors if one.is_open]
        wanted = {
            group: sorted(one.name for one in living if group in one.groups)
            for group in GROUPS
        }
        truth = {}

        async def is_quiet():
            truth.clear()
            truth.update(await self.ask(self.cluster.running[0], "truth"))
            found = {
                group: sorted(user for user, _ in truth.get(group, [{}])[0].values())
                for group in GROUPS
            }
            return found == wanted

        await aeventually(is_quiet, timeout=PATIENCE)
        return truth

    async def wait_until_right(self, truth, within):
        deadline = time.monotonic() + within
        while True:
            living = [one for one in self.visitors if one.is_open]
            wrong = [error for one in living for error in one.errors(truth)]
            if not wrong or time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(0.05)

    async def find_flickers(self, within):
        """Return of whom too many joins or leaves were told, or too few.

        A reload is to show neither. Of those with several connections it is not known
        which one goes on with what; nor of those who were away for too long.
        """
        connections = Counter(one.name for one in self.visitors)
        certain = [one for one in self.visitors if not one.was_late]
        wanted = {one.name: +one.told for one in certain if connections[one.name] == 1}
        self.certain += len(wanted)
        deadline = time.monotonic() + within
        while True:
            told = {name: Counter() for name in connections}
            for node in self.cluster.running:
                for name, *about in await self.ask(node, "signals"):
                    told[name][tuple(about)] += 1
            wrong = [
                f"of {name} was told {dict(told[name])}, not {dict(counts)}"
                for name, counts in wanted.items()
                if told[name] != counts
            ]
            if not wrong or time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(0.05)

    async def ask(self, node, what, **query):
        """Call one of the application's views."""
        url = f"{node.url}/convergence/{what}/?{urlencode(query)}"

        def get():
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)

        return await asyncio.to_thread(get)

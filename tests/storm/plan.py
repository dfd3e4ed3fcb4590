"""What a storm does: a pure function of its seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

ROOMS = [f"room {number}" for number in range(12)] + ["größer", "small-1", "a/b?c"]
#: Seconds of a process' silence, of which those above LEASE cost it its members.
LEASE = 3.0
LONG = (LEASE + 1.0, LEASE + 2.0)
SHORT = (0.3, LEASE / 2)

#: Each kind of fault, and how many seconds it lasts (a range; None: an instant).
KINDS: dict[str, tuple[float, float] | None] = {
    "calm": None,
    "drain": None,
    "exceptions": None,
    "flits": None,
    "deaf": None,
    "kill": None,
    "kill two": None,
    "kill all": None,
    "terminate": None,
    "terminate all": None,
    "freeze": LONG,
    "freeze shortly": SHORT,
    "block": LONG,
    "block shortly": SHORT,
    "store emptied": None,
    "store restarted empty": (0.0, 2.0),
    "store restarted": (0.0, 2.0),
    "store rewound": (0.3, 1.5),
    "store paused": LONG,
    "store paused shortly": SHORT,
    "store clients killed": None,
    "key deleted": None,
    "cut off": LONG,
    "cut off shortly": SHORT,
    "cut": None,
    "refused": LONG,
    "delayed": (1.0, 2.5),
    "kill and store emptied": None,
    "freeze and store emptied": LONG,
}

#: What a client does in a storm, and how often.
VERBS = {"move": 10, "say": 8, "leave": 2, "close": 3, "vanish": 3, "flit": 1}

STEPS = 80
#: Seconds of traffic before a fault and after it.
BEFORE, AFTER = 0.4, 0.3


@dataclass(frozen=True)
class Step:
    """Something that one client does, so many seconds after the round began."""

    at: float
    verb: str
    slot: int
    room: str
    #: Milliseconds, for what is done in a hurry.
    pause: float


@dataclass(frozen=True)
class Round:
    """One fault, and what the clients do meanwhile.

    busy: the traffic goes on while it happens; else it has come to rest before.
    choice: a number from 0 to 1, for whatever else there is to choose.
    """

    number: int
    kind: str
    node: int
    seconds: float
    choice: float
    busy: bool
    #: Where each client enters that is not connected.
    homes: tuple[str, ...]
    steps: tuple[Step, ...]


def make_rounds(
    seed: int, clients: int, nodes: int, kinds: Sequence[str] = ()
) -> Iterator[Round]:
    """Yield the rounds of a storm, for ever. Each kind comes as often as the others."""
    kinds = list(kinds) or list(KINDS)
    for number in itertools.count():
        cycle, place = divmod(number, len(kinds))
        order = list(kinds)
        Random(f"{seed} order {cycle}").shuffle(order)
        random = Random(f"{seed} round {number}")
        yield make_round(random, number, order[place], clients, nodes)


def make_round(
    random: Random, number: int, kind: str, clients: int, nodes: int
) -> Round:
    """Return one round."""
    duration = KINDS[kind]
    seconds = random.uniform(*duration) if duration else 0.0
    end = BEFORE + seconds + AFTER
    steps = [make_step(random, clients, end) for _ in range(STEPS)]
    return Round(
        number=number,
        kind=kind,
        node=random.randrange(nodes),
        seconds=seconds,
        choice=random.random(),
        busy=random.random() < 0.7 and kind != "drain",
        homes=tuple(random.choice(ROOMS) for _ in range(clients)),
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )


def make_step(random: Random, clients: int, end: float) -> Step:
    """Return one step, at any time before the end."""
    (verb,) = random.choices(list(VERBS), weights=list(VERBS.values()))
    return Step(
        at=random.uniform(0, end),
        verb=verb,
        slot=random.randrange(clients),
        room=random.choice(ROOMS),
        pause=random.uniform(0, 2),
    )

"""One round of a storm: traffic, a fault, and whether all is right again."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .faults import FAULTS
from .ledger import Unknowable
from .plan import BEFORE, Round
from .world import POLL, World

#: Kinds after which no member may ever be lost.
NOBODY_IS_LOST = {
    *("calm", "drain", "exceptions", "flits", "deaf", "terminate", "terminate all"),
    *("freeze shortly", "block shortly", "store emptied", "store restarted empty"),
    *("store paused", "store paused shortly", "store restarted", "delayed"),
    *("store rewound", "freeze and store emptied"),
    *("store clients killed", "cut", "cut off shortly"),
}
#: Kinds after which channels_redis core hands out again what waited in its lists.
TIME_GOES_BACK = {"store restarted", "store rewound"}
#: Kinds in which no message may be lost.
HARMLESS = {"calm", "exceptions", "flits"}


@dataclass
class Result:
    """What one fault led to; times are seconds since it was over."""

    kind: str
    number: int
    busy: bool
    #: Since then the clients have had all answers; all counts and member lists were
    #: right; all was signalled; and everybody heard: it is settled.
    settled: float | None = None
    answered: float | None = None
    right: float | None = None
    signalled: float | None = None
    violations: list[str] = field(default_factory=list)
    #: Signals that died with a process, by what they were.
    excused: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        times = [
            ("answered", self.answered),
            ("right", self.right),
            ("signalled", self.signalled),
        ]
        times += [("heard", self.settled)]
        words = [f"{what} {time:.2f} s" for what, time in times if time is not None]
        words += [f"{self.lost} lost"] * bool(self.lost)
        words += [f"excused {self.excused}"] * bool(self.excused)
        words += self.notes
        busy = "busy" if self.busy else "at rest"
        return f"#{self.number} {self.kind} ({busy}): {', '.join(words)}"


async def play(world: World, round: Round, patience: float) -> Result:
    """Let one round happen and judge it."""
    result = Result(round.kind, round.number, round.busy)
    world.violations, world.unknowable, world.notes = [], Unknowable(), []
    await world.fill(round.homes)
    traffic = asyncio.create_task(world.take(round.steps), name="traffic")
    if round.busy:
        await asyncio.sleep(BEFORE)
    else:
        await traffic
        await agree(world, time.monotonic(), patience)
    await FAULTS[round.kind](world, round)
    ended = world.fault_ended
    await traffic
    await world.learn_rooms()
    result.answered = time.monotonic() - ended
    result.right = await agree(world, ended, patience)
    result.signalled = await signalled(world, ended, patience)
    result.settled = await heard(world, ended, patience)
    await world.started_again()
    await agree(world, time.monotonic(), patience)
    if not world.violations:
        world.violations += await world.unheard()  # This time at once.
    judge(world, round, result)
    return result


async def agree(world: World, since: float, patience: float) -> float | None:
    """Wait until every process tells the truth; return how long that took."""
    if not world.serving:
        await world.started_again()
    return await none(world, world.differences, since, patience)


async def signalled(world: World, since: float, patience: float) -> float | None:
    """Wait until the signals of all memberships have been logged."""

    async def missing() -> list[str]:
        world.ledger.read()
        excused = world.unknowable.leaves
        excused |= world.ledger.joined_by(world.unknowable.forgotten)
        excused |= world.strangers()
        logged = defaultdict(set, world.ledger.members())
        truth = defaultdict(set, world.members())
        return [
            f"{room!r}: logged {sorted(logged[room] - truth[room] - excused)}"
            f" too many, {sorted(truth[room] - logged[room])} too few"
            for room in {*logged, *truth}
            if logged[room] - excused != truth[room]
        ] + [
            f"{room!r}: logged no end"
            for room in world.ledger.half_told(world.unknowable.pids)
        ]

    return await none(world, missing, since, patience)


async def heard(world: World, since: float, patience: float) -> float | None:
    """Wait until what is said in a room is heard by its members and nobody else."""
    return await none(world, world.unheard, since, patience)


async def none(
    world: World,
    find: Callable[[], Awaitable[list[str]]],
    since: float,
    patience: float,
) -> float | None:
    """Wait until nothing is found; after `patience` seconds it is a violation."""
    if world.violations:
        return None
    while found := await find():
        if time.monotonic() > since + patience:
            world.violations += [f"after {patience:.0f} s: {one}" for one in found]
            return None
        await asyncio.sleep(POLL)
    return time.monotonic() - since


def judge(world: World, round: Round, result: Result) -> None:
    """Look at everything that has to be right now."""
    world.ledger.close_batch(world.members(), world.unknowable)
    world.violations += world.ledger.violations
    world.ledger.violations.clear()
    if world.ledger.lost and round.kind in NOBODY_IS_LOST:
        world.violations.append(f"{world.ledger.lost} members were taken for lost")
    world.check_hearing(round.kind in HARMLESS, round.kind not in TIME_GOES_BACK)
    world.violations += world.complaints()
    result.violations = world.violations
    result.excused = dict(world.unknowable.used)
    result.lost = world.ledger.lost
    result.notes = world.notes
    for slot in world.slots:
        result.violations += slot.violations
        slot.violations.clear()

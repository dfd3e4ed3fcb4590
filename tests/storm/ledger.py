"""The event logs of all processes, read as they grow, and what is wrong in them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..helpers.events import GroupHistory, _out_of_order, _place

Event = dict[str, Any]


@dataclass
class Unknowable:
    """What nobody can know after a fault, and what of it was made use of.

    A signal dies with a process that is killed between commit and signal. So for
    the processes `pids` that were killed with traffic under way:
    leaves: the ids of whose leave they may have kept silent;
    joins: how many members there may have been of which nobody else was told.

    A store that was emptied while a process was frozen knows nothing of its members,
    `hidden`, until it is back; the others' counts leave them out.
    """

    pids: set[int] = field(default_factory=set)
    leaves: set[str] = field(default_factory=set)
    joins: int = 0
    hidden: set[str] = field(default_factory=set)
    #: Of those among `pids` that died together with the store's data.
    forgotten: set[int] = field(default_factory=set)
    used: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Every group's history, brought up to date when all has come to rest."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.violations: list[str] = []
        #: Events of memberships that ended as "lost", of the last batch.
        self.lost = 0
        self._paths = list(paths)
        self._offsets: Counter[Path] = Counter()
        self._batch: list[Event] = []
        self._histories: dict[str, TolerantHistory] = {}
        self._last: dict[tuple[int, str], Event] = {}

    def read(self) -> None:
        """Read what was written since the last time."""
        for path in self._paths:
            if not path.exists():
                continue
            with path.open("rb") as log:
                log.seek(self._offsets[path])
                complete, newline, _ = log.read().rpartition(b"\n")
            self._offsets[path] += len(complete) + len(newline)
            self._batch += [json.loads(line) for line in complete.splitlines()]

    def joined_by(self, pids: set[int]) -> set[str]:
        """Return the ids whose joins some processes have logged since the last time."""
        return {e["id"] for e in self._batch if e["pid"] in pids and "id" in e}

    def members(self) -> dict[str, set[str]]:
        """Return who is in each group, by all that was read."""
        members: dict[str, set[str]] = defaultdict(set)
        for name, history in self._histories.items():
            members[name] |= history.members
        for event in sorted(self._batch, key=_place):
            if event["event"] == "join":
                members[event["group"]].add(event["id"])
            elif event["event"] == "leave":
                members[event["group"]].discard(event["id"])
        return {name: ids for name, ids in members.items() if ids}

    def half_told(self, killed: set[int]) -> set[str]:
        """Return the groups of whose end the processes that live are still to tell."""
        last = {event["group"]: event for event in sorted(self._batch, key=_place)}
        return {
            name
            for name, event in last.items()
            if event["event"] == "leave" and not event["count"]
            if event["pid"] not in killed
        }

    def close_batch(self, truth: dict[str, set[str]], unknowable: Unknowable) -> None:
        """Judge the events that were read, now that `truth` is what is so."""
        batch, self._batch = self._batch, []
        self.lost = sum(event.get("reason") == "lost" for event in batch)
        self._check_order(batch)
        groups: dict[str, list[Event]] = defaultdict(list)
        for event in sorted(batch, key=_place):
            groups[event["group"]].append(event)
        for name in {*groups, *self._histories}:
            history = self._histories.get(name) or TolerantHistory(name)
            self._histories[name] = history
            history.take(groups[name], truth.get(name, set()), unknowable)
            self.violations += history.violations
            history.violations.clear()

    def _check_order(self, batch: list[Event]) -> None:
        """Each process has to be told of each group in the order of revision."""
        lines: dict[tuple[int, str], list[Event]] = defaultdict(list)
        for event in batch:
            lines[event["pid"], event["group"]].append(event)
        for key, events in lines.items():
            before = [self._last[key]] if key in self._last else []
            self.violations += _out_of_order(before + events)
            self._last[key] = events[-1]


class TolerantHistory(GroupHistory):
    """A group's events, where signals may be missing that died with a process."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._unknowable = Unknowable()
        self._unheard: list[str] = []
        self._leaving: list[str] = []
        self._phantoms: list[str] = []
        self._highest = 0
        self._last_of: dict[int, Event] = {}

    @property
    def members(self) -> set[str]:
        return self._members

    def take(
        self, events: list[Event], truth: set[str], unknowable: Unknowable
    ) -> None:
        """Take a batch, after which `truth` are the members."""
        self._unknowable = unknowable
        if events and events[0]["revision"] < self._highest:
            self._report("has a revision that is not above all before it", events[0])
        self._last_of = {event["pid"]: event for event in events}
        self._find_missing(events, truth)
        for event in events:
            self._catch_up(event)
            self.add(event)
            self._highest = max(self._highest, event["revision"])
        for id in list(self._leaving):
            self._lose_leave(id)
        for phantom in list(self._phantoms):
            self._lose_leave(phantom)
        if unknowable.pids and not self._members and self._alive:
            self._alive = False
        if unknowable.hidden and self._members:
            self._alive = True
        self._check_pair(None)
        self._previous = None
        if self._members != truth:
            self._report(f"has {self._members ^ truth} only in logs or in truth")
            self._members = set(truth)
            self._alive = bool(truth)

    def _find_missing(self, events: list[Event], truth: set[str]) -> None:
        """Find the joins that nobody logged, and the leaves."""
        members, self._unheard = set(self._members), []
        for event in events:
            if event["event"] == "join":
                members.add(event["id"])
            elif event["event"] == "leave":
                if event["id"] not in members and self._unknowable.joins > 0:
                    self._unheard.append(event["id"])
                members.discard(event["id"])
        gone = members - truth
        self._leaving = sorted(gone & self._unknowable.leaves)

    def _catch_up(self, event: Event) -> None:
        """Do what a missing signal would have told, as far as counts show it."""
        if not self._unknowable.pids:
            return
        if event["event"] == "created":
            if self._alive:
                for id in [*self._leaving, *self._phantoms]:
                    self._lose_leave(id)
                self._alive = bool(self._members)
            return
        if event["event"] == "destroyed":
            return
        rejoined = event["event"] == "join" and event["id"] in self._members
        if rejoined and event["id"] in self._unknowable.leaves:
            self._lose_leave(event["id"])
        if event.get("id") in self._unheard:
            self._lose_join(event["id"])
        change = 1 if event["event"] == "join" else -1
        missing = event["count"] - len(self._members) - change
        while missing > 0 and (self._unheard or self._unknowable.joins > 0):
            self._lose_join(self._unheard[0] if self._unheard else None)
            missing -= 1
        while missing < 0 and (self._phantoms or self._leaving):
            self._lose_leave((self._phantoms or self._leaving)[0])
            missing += 1

    def _lose_join(self, id: str | None) -> None:
        self._unknowable.used["joins"] += 1
        self._unknowable.joins -= 1
        if id is None:
            id = f"unknown {self._unknowable.joins}"
            self._phantoms.append(id)
        else:
            self._unheard.remove(id)
        self._members.add(id)
        self._alive = True
        self._previous = None

    def _lose_leave(self, id: str) -> None:
        self._unknowable.used["leaves"] += 1
        self._members.discard(id)
        for missing in (self._leaving, self._phantoms):
            if id in missing:
                missing.remove(id)
        self._previous = None
        if not self._members:
            self._alive = False

    def _check_counts(self, event: Event) -> None:
        """Members of a frozen process may not be counted in an emptied store."""
        hidden = self._hidden()
        if hidden and event["count"] == len(self._members) - len(hidden):
            self._unknowable.used["counts without the frozen"] += 1
        else:
            super()._check_counts(event)

    def _created(self, event: Event) -> None:
        if self._hidden() == self._members:
            self._alive = False
        hidden = self._hidden()
        super()._created(event)
        self._members |= hidden

    def _destroyed(self, event: Event) -> None:
        hidden = self._hidden()
        self._members -= hidden
        super()._destroyed(event)
        self._members |= hidden

    def _hidden(self) -> set[str]:
        return self._members & self._unknowable.hidden

    def _check_pair(self, event: Event | None) -> None:
        """A process may have died after the first signal of two."""
        before = self._previous
        if before is not None and not self._shares_revision(event):
            is_half = before["event"] == "created" or (
                before["event"] == "leave" and self._alive and not self._members
            )
            killed = before["pid"] in self._unknowable.pids
            if is_half and killed and self._last_of.get(before["pid"]) is before:
                self._unknowable.used["second of two"] += 1
                self._alive = bool(self._members)
                return
        super()._check_pair(event)

"""The oracle: what the event logs of all processes must agree on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]

REASONS = {"left", "disconnected", "expired", "lost"}
# What shares a revision: created comes before its join, destroyed after its leave.
RANK = {"created": 0, "join": 1, "leave": 1, "destroyed": 2}


def violations(
    events: Iterable[Event],
    *,
    ended: bool = False,
    users: Mapping[str, str] | None = None,
) -> list[str]:
    """
    Return what is wrong in the logs of all processes, as sentences; empty if nothing.

    `events` are their lines in any order of processes, each process' own in the order
    it wrote them. With `ended`, every membership and every group must be over. With
    `users`, which maps connection ids to user ids, user counts are checked exactly;
    a connection that it lacks has no user.
    """
    events = list(events)
    found = [
        problem
        for lines in _split(events, "pid", "group").values()
        for problem in _out_of_order(lines)
    ]
    for (name,), lines in _split(events, "group").items():
        history = GroupHistory(name, users)
        for event in sorted(lines, key=_place):
            history.add(event)
        history.finish(ended)
        found += history.violations
    return found


def memberships(events: Iterable[Event]) -> dict[str, set[str]]:
    """Return who is in each group that still is, by what the events say."""
    members: dict[str, set[str]] = defaultdict(set)
    for event in sorted(events, key=_place):
        if event["event"] == "join":
            members[event["group"]].add(event["id"])
        elif event["event"] == "leave":
            members[event["group"]].discard(event["id"])
    return {name: ids for name, ids in members.items() if ids}


class GroupHistory:
    """One group's events in the order of revision, and what breaks the contract."""

    def __init__(self, name: str, users: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.violations: list[str] = []
        self._users = users
        self._alive = False
        self._members: set[str] = set()
        self._previous: Event | None = None

    def add(self, event: Event) -> None:
        """Take the next event."""
        self._check_revision(event)
        self._check_pair(event)
        getattr(self, f"_{event['event']}")(event)
        self._previous = event

    def finish(self, ended: bool) -> None:
        """Take the end of the logs."""
        self._check_pair(None)
        if ended and self._members:
            self._report(f"never left: {', '.join(sorted(self._members))}")
        elif ended and self._alive:
            self._report("was never destroyed")

    def _created(self, event: Event) -> None:
        if self._alive:
            self._report("created while it was there", event)
        self._alive = True
        self._members.clear()

    def _join(self, event: Event) -> None:
        if not self._alive:
            self._report("joined before it was created", event)
        if event["id"] in self._members:
            self._report("joined twice", event)
        self._alive = True
        self._members.add(event["id"])
        self._check_counts(event)

    def _leave(self, event: Event) -> None:
        if event["id"] not in self._members:
            self._report("left by somebody who is not in it", event)
        if event.get("reason") not in REASONS:
            self._report(f"left for the reason {event.get('reason')!r}", event)
        self._members.discard(event["id"])
        self._check_counts(event)

    def _destroyed(self, event: Event) -> None:
        if not self._alive:
            self._report("destroyed when it was not there", event)
        if self._members:
            self._report(f"destroyed with {len(self._members)} members", event)
        self._alive = False
        self._members.clear()

    def _check_revision(self, event: Event) -> None:
        """Only created and its join, a leave and its destroyed share a revision."""
        if self._previous is None or not self._shares_revision(event):
            return
        pair = (self._previous["event"], event["event"])
        if pair not in {("created", "join"), ("leave", "destroyed")}:
            self._report(f"{pair[0]} and {pair[1]} share a revision", event)

    def _shares_revision(self, event: Event | None) -> bool:
        if self._previous is None or event is None:
            return False
        return bool(self._previous["revision"] == event["revision"])

    def _check_pair(self, event: Event | None) -> None:
        """After created comes its join, after the last leave comes destroyed."""
        before = self._previous
        if before is None or self._shares_revision(event):
            return
        if before["event"] == "created":
            self._report("created without a join", before)
        if before["event"] == "leave" and self._alive and not self._members:
            self._report("not destroyed by its last leave", before)
            self._alive = False

    def _check_counts(self, event: Event) -> None:
        count, user_count = event["count"], event["user_count"]
        if count != len(self._members):
            self._report(f"count {count} instead of {len(self._members)}", event)
        if self._users is not None:
            users = {self._users[id] for id in self._members if id in self._users}
            if user_count != len(users):
                self._report(f"user_count {user_count}, not {len(users)}", event)
        elif not 0 <= user_count <= count:
            self._report(f"user_count {user_count} of {count}", event)

    def _report(self, problem: str, event: Event | None = None) -> None:
        place = ""
        if event is not None:
            who = f" ({event['event']} of {event['id']})" if "id" in event else ""
            place = f" at revision {event['revision']}{who}, process {event['pid']}"
        self.violations.append(f"{self.name!r} {problem}{place}")


def _split(events: Iterable[Event], *fields: str) -> dict[tuple[Any, ...], list[Event]]:
    parts: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for event in events:
        parts[tuple(event[field] for field in fields)].append(event)
    return parts


def _place(event: Event) -> tuple[int, int]:
    """Where an event belongs among those of its group."""
    return event["revision"], RANK[event["event"]]


def _out_of_order(lines: list[Event]) -> Iterable[str]:
    """Find where one process was told of one group's events in the wrong order."""
    for earlier, later in zip(lines, lines[1:]):
        if _place(later) < _place(earlier):
            yield (
                f"{later['group']!r} {later['event']} of revision {later['revision']}"
                f" signalled after {earlier['event']} of revision"
                f" {earlier['revision']}, process {later['pid']}"
            )

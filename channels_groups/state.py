"""What a group is like, for the clients of this node's members.

A node follows each group that some of its members are shown, once for all of them: it
reads the members and then applies every change in the order of revisions. What is
missing is noticed by the revision that each change names as the one before, or by a
look at the store now and then, and the group is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Coroutine, Iterable, Mapping, NamedTuple

from .connection import Message
from .deadline import in_time
from .exceptions import StoreUnavailable
from .membership import Membership
from .receiver import RETRY
from .stores.base import StoreRebuilding, Summary

if TYPE_CHECKING:
    from .groups import Connection, ConnectionGroup
    from .manager import GroupManager

logger = logging.getLogger("channels_groups")

#: Seconds between two looks at the store.
TICK = 0.75
#: Seconds between two changes of the counts of a large group.
COUNTING = 1.0
#: Seconds, beside CHANGE_INTERVAL, that a change may be on its way.
PATIENCE = 0.4
#: Changes that are kept for members who have not been shown them yet.
LOG = 1000
#: Groups that one call looks at.
LOOK = 500
#: A group has shrunk when its members are no more than this part of STATE_LIMIT.
SHRUNK = 0.9


class Step(NamedTuple):
    """One change of a group; kind is "joined", "left" or "updated"."""

    revision: int
    kind: str
    connection: Connection


class Segment(NamedTuple):
    """All changes of a group after one revision up to another, in order."""

    previous: int
    revision: int
    steps: list[Step]


@dataclass(frozen=True)
class News:
    """What one client is shown next.

    members: everybody, or None where only counts are shown;
    previous: the revision that the client was shown last, None for a whole state;
    joined, left, updated: the difference between the two.
    """

    group: ConnectionGroup
    revision: int
    count: int
    user_count: int
    previous: int | None = None
    members: tuple[Connection, ...] | None = None
    joined: tuple[Connection, ...] = ()
    left: tuple[Connection, ...] = ()
    updated: tuple[Connection, ...] = ()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Everybody of whom the client is shown something."""
        return self.members or (*self.joined, *self.updated)

    def content(
        self, seen: Mapping[str, dict[str, Any] | None], viewer: Viewer
    ) -> Message:
        """Return the message to the viewer's client, with what it may see of each."""

        def show(connections: Iterable[Connection]) -> list[Message]:
            members = ((one.id, seen[one.id]) for one in connections)
            return [
                {**member, "id": id} for id, member in members if member is not None
            ]

        hidden, id = viewer.hidden, viewer.membership.member.id
        viewer.hide(self, seen)
        about = {"group": self.group.name, "revision": self.revision}
        counts = {"count": self.count, "user_count": self.user_count}
        if self.previous is None:
            members = None if self.members is None else show(self.members)
            about = {**about, "id": id, **counts}
            return {"type": "group.state", **about, "members": members}
        # Who may be seen or not any more has come or gone, as far as the client knows.
        appeared = [one for one in self.updated if one.id in hidden]
        gone = [one for one in self.updated if seen[one.id] is None]
        left = [one.id for one in (*self.left, *gone) if one.id not in hidden]
        return {
            "type": "group.change",
            **about,
            "previous": self.previous,
            "joined": show((*self.joined, *appeared)),
            "left": left,
            "updated": show(one for one in self.updated if one.id not in hidden),
            **counts,
        }


class States:
    """The groups of one node that some of its members are shown."""

    def __init__(self, manager: GroupManager) -> None:
        self.limit = manager.settings.state_limit
        self.interval = manager.settings.change_interval
        self._store = manager.store
        self._alias = manager.alias
        self._loop = asyncio.get_running_loop()
        self._groups: dict[str, GroupState] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def enter(self, membership: Membership) -> None:
        """Show a member its group from now on; it may have entered before."""
        group = membership.group
        state = self._groups.get(group.name)
        if state is None:
            state = self._groups[group.name] = GroupState(self, group)
        state.enter(membership)
        if self._looking is None:
            self._looking = self.spawn(self._look(), "look at the groups' states")

    def leave(self, membership: Membership) -> None:
        """Show a member nothing more."""
        state = self._groups.get(membership.group.name)
        if state is not None and not state.leave(membership):
            state.close()
            del self._groups[membership.group.name]

    def follows(self, group: str) -> bool:
        """Whether a member is shown the group."""
        return group in self._groups

    def group(self, name: str) -> ConnectionGroup | None:
        """Return the handle of the group if a member is shown it."""
        state = self._groups.get(name)
        return None if state is None else state.group

    def take_own(self, group: str, segment: Segment) -> None:
        """Take in what this node has changed: it need not wait for its own message."""
        self.take(group, [segment])

    def take(self, group: str, segments: list[Segment]) -> None:
        """Take in changes, in whatever order and however often they come."""
        state = self._groups.get(group)
        if state is not None:
            state.take(segments)

    async def stop(self) -> None:
        """End everything that goes on here."""
        for state in self._groups.values():
            state.close()
        self._groups.clear()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def spawn(self, run: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin a task that stop() ends."""
        task = self._loop.create_task(run, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def summary(self, group: str) -> Summary:
        """Look at one group."""
        shard = self._store.shard(group)
        return (await self._store.summaries(shard, [group]))[0]

    async def _look(self) -> None:
        """Look at all groups once a second, as long as there are any."""
        try:
            while self._groups:
                await asyncio.sleep(TICK)
                for shard, names in self._shards().items():
                    for start in range(0, len(names), LOOK):
                        await self._compare_all(shard, names[start : start + LOOK])
        finally:
            self._looking = None

    def _shards(self) -> dict[int, list[str]]:
        """Return the names of the groups of each shard."""
        shards = defaultdict(list)
        for name in self._groups:
            shards[self._store.shard(name)].append(name)
        return shards

    async def _compare_all(self, shard: int, names: list[str]) -> None:
        """Go on whatever happens: what was missed of other groups is found by this."""
        try:
            await self._compare(shard, names)
        except Exception:
            what = "Groups' states were not compared; it tries again."
            logger.exception(what, extra={"alias": self._alias, "shard": shard})

    async def _compare(self, shard: int, names: list[str]) -> None:
        names = [name for name in names if name in self._groups]
        revisions = [self._groups[name].revision for name in names]
        try:
            summaries = await self._store.summaries(shard, names)
        except (StoreUnavailable, StoreRebuilding):
            return  # The lease keeps the log of outages.
        for name, revision, summary in zip(names, revisions, summaries):
            state = self._groups.get(name)
            if state is not None:
                state.compare(summary, revision)


class GroupState:
    """One group as this node knows it: its members at one of its revisions.

    Each step that changes what clients see is counted, and the last ones are kept. A
    client that has seen the first n steps is shown the difference that the others
    make, or everything if they are not kept any more. Steps without a change in them
    say that only the counts have changed: nobody is listed in a group that has more
    members than STATE_LIMIT.
    """

    def __init__(self, states: States, group: ConnectionGroup) -> None:
        self.group = group
        self.revision = 0
        self.count = 0
        self.user_count = 0
        #: None: not known yet, or too many.
        self.members: dict[str, Connection] | None = None
        self.steps = 0
        self._known = False
        self._users: Counter[str] = Counter()
        self._log: deque[Step | None] = deque()
        self._news: dict[tuple[int | None, int], News] = {}
        self._viewers: dict[Membership, Viewer] = {}
        self._states = states
        self._loop = asyncio.get_running_loop()
        #: What does not follow on the revision yet, in order.
        self._waiting: list[Segment] = []
        self._arrival = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        #: What ends the patience with what is missing, by how that is known.
        self._overdue: dict[str, asyncio.TimerHandle] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        self._counted_at = float("-inf")

    # Who is shown it

    def enter(self, membership: Membership) -> None:
        if membership not in self._viewers:
            membership.viewer = self._viewers[membership] = Viewer(self, membership)
        if not self._known:
            self._read_soon()
        self._expect("join", membership.revision)
        self._tell_soon()

    def leave(self, membership: Membership) -> int:
        """Return how many are left."""
        self._viewers.pop(membership, None)
        return len(self._viewers)

    def close(self) -> None:
        for timer in self._overdue.values():
            timer.cancel()
        if self._telling:
            self._telling.cancel()
        if self._reading:
            self._reading.cancel()

    def shows(self, membership: Membership) -> bool:
        """Whether the member is in what is known here, if it still is a member."""
        is_counted = self._known and self.members is None
        return is_counted or self._known and self.revision >= membership.revision

    def news(self, shown: int | None, revision: int) -> News | None:
        """Return what is new after so many steps, the last of that revision."""
        if shown == self.steps:
            return None
        key = shown, revision
        news = self._news.get(key)
        if news is None:
            news = self._news[key] = self._make_news(shown, revision)
        return news

    def _make_news(self, shown: int | None, revision: int) -> News:
        counts = self.revision, self.count, self.user_count
        if shown is None or shown < self.steps - len(self._log):
            members = None if self.members is None else tuple(self.members.values())
            return News(self.group, *counts, members=members)
        rest = [self._log[i] for i in range(shown - self.steps, 0)]
        return News(self.group, *counts, revision, None, *_net(rest))

    def _tell_soon(self) -> None:
        """Tell all now, or when CHANGE_INTERVAL has passed since they were told."""
        if self._telling is None:
            when = max(self._loop.time(), self._told_at + self._states.interval)
            self._telling = self._loop.call_at(when, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if any([viewer.tell() for viewer in self._viewers.values()]):
            self._told_at = self._loop.time()

    # What happens to it

    def take(self, segments: list[Segment]) -> None:
        if self.members is None and self._reading is None:
            return
        self._waiting.extend(segments)
        self._waiting.sort(key=lambda segment: segment.revision)
        self._arrival.set()
        if self._reading is None:
            self._advance()

    def compare(self, summary: Summary, revision: int) -> None:
        """Compare with the store, which was asked when the state had a revision."""
        if self._reading or not self._trusts(summary):
            return
        if self.members is None:
            if self._loop.time() - self._counted_at < COUNTING:
                return
            self._counted_at = self._loop.time()
            self._count(summary)
        elif summary.revision > self.revision:
            self._expect("look", summary.revision)
        elif summary.revision < revision or (
            summary.revision == self.revision and summary.count != self.count
        ):
            self._read_soon()
        for viewer in self._viewers.values():
            viewer.tell_all()
        self._tell_soon()

    def _advance(self) -> None:
        """Apply the changes that follow on each other."""
        before = self.revision
        for step in self._following(self.revision):
            self._apply(step)
        self.revision = self._chain(self.revision)
        self._waiting = [one for one in self._waiting if one.revision > self.revision]
        if self.revision != before:
            self._note_size()
            self._tell_soon()
        if self._waiting:
            self._expect("gap", self._waiting[-1].revision)

    def _apply(self, step: Step) -> None:
        assert self.members is not None
        id = step.connection.id
        before = self.members.get(id)
        after = None if step.kind == "left" else step.connection
        if after is not None:
            self.members[id] = after  # In the place that it had.
        else:
            self.members.pop(id, None)
        self._log_difference(step, before, after)

    def _log_difference(
        self, step: Step, before: Connection | None, after: Connection | None
    ) -> None:
        """Keep the step as what it is to who knows the members."""
        if before is not None and before.user_id is not None:
            self._users[before.user_id] -= 1
            if not self._users[before.user_id]:
                del self._users[before.user_id]
        if after is not None and after.user_id is not None:
            self._users[after.user_id] += 1
        if before is None and after is not None:
            self._step(step._replace(kind="joined"))
        elif before is not None:
            self._step(step if after is None else step._replace(kind="updated"))

    def _step(self, step: Step | None) -> None:
        self._log.append(step)
        self.steps += 1
        if len(self._log) > LOG:
            self._log.popleft()
        self._news.clear()

    def _restart(self) -> None:
        """Let everybody be shown everything."""
        self._log.clear()
        self.steps += 1
        self._news.clear()

    def _note_size(self) -> None:
        assert self.members is not None
        self.count, self.user_count = len(self.members), len(self._users)
        if self._is_large(self.count):
            self._count(Summary(self.revision, self.count, self.user_count))

    def _is_large(self, count: int) -> bool:
        limit = self._states.limit
        if limit is None:
            return False
        is_counted = self._known and self.members is None
        # At the limit of 1 there is no room for a part of it.
        return count > (max(limit * SHRUNK, 1) if is_counted else limit)

    def _count(self, summary: Summary) -> None:
        """Show counts only; list the members again if they have become fewer."""
        if not self._is_large(summary.count):
            self._read_soon()
            return
        new = summary.revision, summary.count, summary.user_count
        old = self.revision, self.count, self.user_count
        self.revision, self.count, self.user_count = new
        if self.members is not None or not self._known:
            self._counted_at = self._loop.time()
            self.members, self._known = None, True
            self._users.clear()
            self._waiting.clear()
            self._restart()
            self._tell_soon()
        elif new != old:
            self._step(None)

    # Reading it

    def _expect(self, why: str, revision: int) -> None:
        """Read the group again unless that revision is heard of in time."""
        if why in self._overdue or self._reading or revision <= self.revision:
            return
        patience = PATIENCE + self._states.interval
        timer = self._loop.call_later(patience, self._miss, why, revision)
        self._overdue[why] = timer

    def _miss(self, why: str, revision: int) -> None:
        del self._overdue[why]
        if self.members is None:
            return
        if self.revision < revision:
            self._read_soon()
        elif self._waiting:
            self._expect(why, self._waiting[-1].revision)

    def _read_soon(self) -> None:
        if self._reading is None:
            self._reading = self._states.spawn(
                self._read(), f"read the state of {self.group.name[:50]}"
            )

    async def _read(self) -> None:
        """Read the group until what was read is whole."""
        try:
            while not await self._has_read():
                await asyncio.sleep(RETRY)
        finally:
            self._reading = None
        if self.members is not None:
            self._advance()
        self._tell_soon()

    async def _has_read(self) -> bool:
        try:
            return await self._read_once()
        except (StoreUnavailable, StoreRebuilding):
            logger.debug("A group's state was not read.", exc_info=True)
            return False
        except Exception:
            logger.exception(
                "The state of group %r was not read; it tries again.",
                self.group.name,
                extra={"alias": self.group.manager.alias, "group": self.group.name},
            )
            return False

    async def _read_once(self) -> bool:
        """Read the members, and apply the changes that happened meanwhile.

        What is listed while the group goes from one revision to another may have each
        of these changes in it or not; with all of them it is right, in either case.
        """
        before = await self._states.summary(self.group.name)
        if not self._trusts(before):
            return False
        if self._is_large(before.count):
            self._count(before)
            return True
        members = {one.id: one async for one in self.group}
        after = await self._states.summary(self.group.name)
        if not self._trusts(after):
            return False
        patience = PATIENCE + self._states.interval
        try:
            await in_time(self._hear(before.revision, after.revision), patience)
        except asyncio.TimeoutError:
            return False
        self._settle(before.revision, members)
        return True

    async def _hear(self, since: int, until: int) -> None:
        """Wait for all changes between two revisions."""
        while self._chain(since) < until:
            self._arrival.clear()
            await self._arrival.wait()

    def _chain(self, revision: int) -> int:
        """Return the revision to which what waits leads from another.

        What follows on 0 follows on nothing known: while nobody was told, anybody may
        have come and gone.
        """
        for segment in self._waiting:
            if 0 < segment.previous <= revision < segment.revision:
                revision = segment.revision
        return revision

    def _following(self, revision: int) -> list[Step]:
        """Return what waits for a revision and follows on it, in order."""
        last = self._chain(revision)
        steps = {
            step.revision: step
            for segment in self._waiting
            for step in segment.steps
            if revision < step.revision <= last
        }
        return [steps[revision] for revision in sorted(steps)]

    def _settle(self, revision: int, members: dict[str, Connection]) -> None:
        """Take what was read for the truth, and note what is different."""
        for step in self._following(revision):
            if step.kind == "left":
                members.pop(step.connection.id, None)
            else:
                members[step.connection.id] = step.connection
        revision = self._chain(revision)
        self._waiting = [one for one in self._waiting if one.revision > revision]
        before, self.members, self.revision = self.members, members, revision
        if before is None:
            self._known = True
            self._users = Counter(_users(members))
            self._restart()
        else:
            self._compare_members(before, members)
        self._note_size()

    def _compare_members(
        self, before: dict[str, Connection], after: dict[str, Connection]
    ) -> None:
        for id in before.keys() | after.keys():
            old, new = before.get(id), after.get(id)
            if old is None or new is None or _facts(old) != _facts(new):
                one = new or old
                assert one
                kind = "left" if new is None else "joined"
                step = Step(self.revision, kind, one)
                self._log_difference(step, old, new)

    def _trusts(self, summary: Summary) -> bool:
        """Whether the store knows at least of this node's own members.

        It does not while it has lost its data, or takes this node for dead.
        """
        return summary.count >= sum(one.committed for one in self._viewers)


class Viewer:
    """What one member's client has been shown of a group."""

    def __init__(self, state: GroupState, membership: Membership) -> None:
        self.membership = membership
        self._state = state
        #: How many of the steps; None: to be shown everything.
        self._shown: int | None = None
        self._revision = 0
        self._is_told = False
        #: The ids of members whom the client does not know of: it may not see them.
        self.hidden: frozenset[str] = frozenset()

    def hide(self, news: News, seen: Mapping[str, Any]) -> None:
        """Note of whom the client knows nothing after these news."""
        before = frozenset[str]() if news.previous is None else self.hidden
        left = {one.id for one in news.left}
        unseen = {id for id, member in seen.items() if member is None}
        self.hidden = before - left - seen.keys() | unseen

    def tell(self) -> bool:
        """Let the consumer show the client what is new; return if there is anything."""
        is_behind = self._shown != self._state.steps
        if is_behind and not self._is_told and self._state.shows(self.membership):
            self._is_told = True
            self.membership.connection.ask(self._take)
        return is_behind

    def tell_all(self) -> None:
        """Do so if the client has yet to be shown everything: that waits for nobody."""
        if self._shown is None:
            self.tell()

    def forget(self) -> None:
        """Have everything shown again, within a second."""
        self._shown = None

    def _take(self) -> Message | None:
        """Return a message for the consumer's handler, made as late as possible."""
        self._is_told = False
        if self.membership.silent or not self._state.shows(self.membership):
            return None
        news = self._state.news(self._shown, self._revision)
        if news is None:
            return None
        self._shown, self._revision = self._state.steps, news.revision
        return {"type": "groups.state", "viewer": self, "news": news}


def _net(steps: Iterable[Step | None]) -> tuple[tuple[Connection, ...], ...]:
    """Return who has joined, left and been updated in the end."""
    joined: dict[str, Connection] = {}
    left: dict[str, Connection] = {}
    updated: dict[str, Connection] = {}
    for step in steps:
        if step is None:
            continue
        id, one = step.connection.id, step.connection
        if step.kind == "left":
            updated.pop(id, None)
            if joined.pop(id, None) is None:
                left[id] = one
        elif id in joined or (step.kind == "joined" and id not in left):
            joined[id] = one
        else:
            left.pop(id, None)
            updated[id] = one
    return tuple(joined.values()), tuple(left.values()), tuple(updated.values())


def _users(members: dict[str, Connection]) -> list[str]:
    users = [one.user_id for one in members.values()]
    return [user for user in users if user is not None]


def _facts(one: Connection) -> tuple[Any, ...]:
    return one.user_id, one.info, one.joined_at

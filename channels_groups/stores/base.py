"""What a membership store does: the contract that every store keeps.

A store holds who is in which group, in one or several shards. A shard is written
by *nodes* (one event loop of one process each), under a lease. It decides alone,
atomically, who created a group and who left it last: that is why each change is
answered once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple, Sequence, Union

from channels_groups.exceptions import GroupError

#: Rows of a listing that are held in memory at once.
PAGE = 500
#: In the place of a node's id: what has members that linger, in no process.
LINGERING = "~"


class Incarnation(NamedTuple):
    """A node's identity in one shard. A node that loses its lease takes a new one.

    ``process`` tells an operator where it runs: ``<host>:<pid>:<number>``, the
    same in all shards.
    """

    id: str
    channel: str
    process: str = ""


class Entry(NamedTuple):
    """A channel in a group of the channel layer."""

    group: str
    channel: str


class Member(NamedTuple):
    """One connection in one group, as it is stored and told.

    ``joined_at`` is in seconds since the epoch, ``info`` is plain JSON.
    """

    id: str
    channel_name: str
    user_id: str | None
    info: dict[str, Any]
    joined_at: float


@dataclass(frozen=True)
class Join:
    """Make ``member`` a member of ``group`` unless ``limit`` members are in it.

    told: its consumer has hooks and wants to be told of changes;
    resume: go on with a membership of the same user: with the first of these ids that
    there is, be it that it lingers or that another node has it, which then has it no
    more; else with any that lingers. None: begin one of its own in any case. Only the
    member's own id: go on with that if it lingers, and do nothing if another node has
    it. With what was
    taken from its own node none is gone on with before a commit has told the node.
    """

    group: str
    member: Member
    limit: int | None = None
    told: bool = False
    resume: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Leave:
    """End the membership that a Join with the same values began.

    grace: not at once, but let it linger for so many seconds. It must have a user.
    """

    group: str
    member: Member
    told: bool = False
    grace: float = 0


@dataclass(frozen=True)
class Update:
    """Write ``member`` in the place of the one of the same id that is in ``group``."""

    group: str
    member: Member
    told: bool = False


@dataclass(frozen=True)
class Confirm:
    """Ask whether the one of ``member``'s id in ``group`` still is this node's."""

    group: str
    member: Member
    told: bool = False


Operation = Union[Join, Leave, Update, Confirm]


@dataclass(slots=True)
class Answer:
    """What one operation did.

    outcome: "created" (joined, as the first), "joined", "left", "destroyed" (left,
    as the last), "updated", "lingering", "resumed" (went on with a membership that
    lingered or was another node's), "taken" (of all but a join: another node's
    connection has gone on with it; said once), "confirmed" (of a Confirm: it is this
    node's), "elsewhere" (of a join: another node has it), "full", or "unchanged"
    (already in, or already out);
    count, user_count: of the whole group after it;
    revision: grows with each change of a group, for ever;
    told: some member of the group, in some process, wants to be told;
    connections: those of the member's user in the group after it, 0 without a user;
    previous: the revision of the group's change before, or 0 if nobody who wants to
    be told has been there since;
    former, owner: the membership that was resumed, as it was, and the channel of the
    node that let it linger or had it, "" if that is gone.
    The group is the same after "lingering" and "resumed"; the revision of "resumed" is
    that of the group's last change.
    """

    outcome: str
    count: int
    user_count: int
    revision: int
    told: bool
    connections: int = 0
    previous: int = 0
    former: Member | None = None
    owner: str = ""


@dataclass(frozen=True)
class Summary:
    """A group at one moment.

    revision: of its last change, 0 if nobody in it wants to be told of changes.
    """

    revision: int
    count: int
    user_count: int


class Loss(NamedTuple):
    """A membership that ended with its process, or as nobody resumed it.

    Its answer is as of a Leave's, with the ``owner`` of one that lingered.
    """

    group: str
    member: Member
    answer: Answer


class Eviction(NamedTuple):
    """A batch of a dead node's members; ``done`` when none is left of it.

    ``entries`` are what the survivor has to discard from the layer's groups.
    """

    losses: list[Loss]
    entries: list[Entry]
    done: bool


class Holdings(NamedTuple):
    """What a node is sure that the store has of it.

    sequence: of the last commit that was answered; size: the node's memberships, with
    those that were taken from it as long as no commit has said so;
    groups: for some of its groups, how many members are here, and a user of theirs;
    ids: for some of those, the id of a connection of that user there.
    ``connections`` of the node are only to be shown: nothing is compared with them.
    """

    sequence: int = 0
    size: int = 0
    groups: Mapping[str, tuple[int, str | None]] = {}
    connections: int = 0
    ids: Mapping[str, str] = {}


class NodeState(NamedTuple):
    """A node in one shard, for whoever operates it.

    connections: as of the last renewal;
    remaining: seconds until its lease ends, 0 or less if it has.
    """

    shard: int
    id: str
    process: str
    connections: int
    memberships: int
    remaining: float


class Renewal(NamedTuple):
    """state: "alive"; "lost", the lease is gone and with it the identity; or
    "emptied", the store lost its data and wants it back from the living;
    epoch: names the store's present data; overdue: the nodes that may be evicted;
    reconnected: the connection was lost since the last renewal, and perhaps the
    others', who then need the time to renew: nobody is reported as overdue;
    watchers: the channels that want to hear of every event, see watch();
    taken: the groups and connection ids of what another node's connection goes on
    with, and of which no commit has told this node yet;
    damaged: the store has lost data, and counts as emptied once the dead are evicted.
    """

    state: str
    epoch: str
    overdue: list[str]
    reconnected: bool = False
    watchers: Sequence[str] = ()
    taken: Sequence[tuple[str, str]] = ()
    damaged: bool = False


class Disagreement(NamedTuple):
    """Something that two of the store's books say differently: a sentence, and of
    which group and node it is, as far as it is of one.
    """

    what: str
    shard: int = 0
    group: str | None = None
    node: str | None = None


class Findings(NamedTuple):
    """A page of verify(): how many entries were compared, and what disagrees."""

    checked: int
    disagreements: list[Disagreement]


class LeaseLost(GroupError):
    """The store does not know this incarnation of the node, or lost its connection."""


class StoreRebuilding(GroupError):
    """The store was emptied and takes only what the living nodes write back, or it was
    restarted and takes nothing before they all have renewed their leases.
    """


class BaseStore(ABC):
    """Keep memberships for one channel layer.

    Every method may raise StoreUnavailable, within two seconds. ``now`` is the
    store's own clock: nodes' clocks are never compared.
    """

    #: How many independent parts there are; groups are spread over them.
    shards = 1
    #: A group_add() of the layer that has returned has reached its server.
    layer_confirms = True
    #: The layer may run sync code in Django's thread for it, which consumers block.
    layer_may_block = False
    #: Memberships may linger: the store can do that, and GRACE is set.
    lingers = False

    @abstractmethod
    def shard(self, group: str) -> int:
        """Return the number of the shard that holds ``group``."""

    def adds(self, shard: int, entry: Entry) -> bool:
        """Return whether commits add such an entry to the layer's groups themselves."""
        return False

    def host(self, group: str) -> int:
        """Return the number of the layer's host that has one of its groups.

        Where the layer has the store's hosts, they have the shards' numbers.
        """
        return 0

    async def new_channel(self, layer: Any, group: str) -> str:
        """Return a channel to be put into one of the layer's groups.

        It needs no other host of the layer than the group does.
        """
        channel: str = await layer.new_channel()
        return channel

    def attach(self) -> None:
        """Keep connections for this event loop until detach()."""

    async def detach(self) -> None:
        """Close what attach() keeps. Called as often as attach()."""

    # Written by nodes

    @abstractmethod
    async def register(
        self, shard: int, node: Incarnation, epoch: str, lease: float
    ) -> str:
        """Give ``node`` a lease of so many seconds and return the epoch.

        ``epoch`` is the one the node knew, or "" for a new node. Raise
        StoreRebuilding as long as the store clears away data of an earlier epoch.
        """

    @abstractmethod
    async def renew(
        self,
        shard: int,
        node: Incarnation,
        epoch: str,
        lease: float,
        renewal: float,
        holdings: Holdings = Holdings(),
    ) -> Renewal:
        """Put off the lease's end and report the nodes that may be evicted.

        Those are the ones whose lease has run out, and those that missed a
        renewal (every ``renewal`` seconds) and have no connection to the store.
        A store that does not hold what the node is sure of has lost data: it
        counts as emptied, for all nodes, perhaps once the dead are evicted.
        """

    @abstractmethod
    async def commit(
        self,
        shard: int,
        node: Incarnation,
        sequence: int,
        operations: Sequence[Operation],
        entries: Mapping[str, Sequence[Entry]],
        restore: bool = False,
    ) -> list[Answer]:
        """Carry out the operations in order, atomically, and answer each.

        ``entries`` has what the node needs in the layer for each group. Repeating
        a sequence number gives the first answer again, so a commit whose answer
        was lost can be repeated. ``restore`` writes back what an
        emptied store held, and alone is taken while it is being rebuilt. There
        are fewer answers than operations where the store notices that it has lost
        data; the rest is not carried out. Raise LeaseLost, or StoreRebuilding.
        """

    @abstractmethod
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
        """Take up to ``limit`` members out of a node that renew() reported.

        Each is given to one caller only. A node that has renewed its lease
        meanwhile is left alone. Repeating a sequence number, which is not a
        commit's, gives the first answer again. Of LINGERING, which renew() reports as
        a node, those are taken out whose grace has ended.
        """

    @abstractmethod
    async def release(self, shard: int, node: Incarnation) -> None:
        """Give up the lease of a node without members and forget the node."""

    async def forget(self, node: Incarnation) -> None:
        """Close what is kept for an identity that was lost."""

    # Read by everybody. What is on a node whose lease has run out is left out.

    @abstractmethod
    async def count(self, group: str) -> int:
        """Return the number of members."""

    @abstractmethod
    async def user_count(self, group: str) -> int:
        """Return the number of distinct user ids."""

    @abstractmethod
    async def users(self, group: str) -> set[str]:
        """Return the distinct user ids."""

    @abstractmethod
    async def member(self, group: str, id: str) -> Member | None:
        """Return one member."""

    @abstractmethod
    async def summaries(self, shard: int, groups: Sequence[str]) -> list[Summary]:
        """Look at some groups of one shard, each at one moment.

        Raise StoreRebuilding while the living nodes write back what was lost.
        """

    @abstractmethod
    async def user_members(
        self, user_id: str, cursor: Any
    ) -> tuple[list[tuple[str, Member]], Any]:
        """Return a page of a user's memberships with their groups, and the next cursor.

        None begins, and ends. Nobody else's are read.
        """

    @abstractmethod
    async def group_nodes(self, group: str) -> list[str]:
        """Return the nodes that have members of the group, LINGERING perhaps too."""

    @abstractmethod
    async def node_members(
        self, group: str, node: str, cursor: str, size: int = PAGE
    ) -> tuple[list[Member], str]:
        """Return about ``size`` members of a node in the group, and the next cursor.

        "" begins, and ends. A cursor is text that may stand in an address and be
        used in another process; what it promises is said in members().
        """

    async def members(self, group: str, cursor: Any) -> tuple[list[Member], Any]:
        """Return a page and the next cursor; None begins, and ends.

        Who is a member from the first page to the last is listed; a very large
        group that shrinks meanwhile may have a member listed twice. Who lingers is
        listed first, and once more last: it may be on the way from or to a node.
        """
        if cursor is None:
            nodes = await self.group_nodes(group)
            if self.lingers:
                nodes = [one for one in nodes if one != LINGERING]
                nodes = [LINGERING, *nodes, LINGERING]
            cursor = nodes, "", frozenset()
        nodes, position, seen = cursor
        if not nodes:
            return [], None
        members, position = await self.node_members(group, nodes[0], position)
        members = [one for one in members if one.id not in seen]
        if nodes[0] == LINGERING:
            seen = seen.union(one.id for one in members)
        if not position:
            nodes = nodes[1:]
        return members, (nodes, position, seen) if nodes else None

    @abstractmethod
    async def groups(
        self, prefix: str, cursor: Any
    ) -> tuple[list[tuple[str, int]], Any]:
        """Return a page of names with counts and the next cursor.

        Without a prefix, those with most members first. With one the
        cursor can be written as JSON, and keeps its meaning.
        """

    @abstractmethod
    async def ranking(
        self, shard: int, first: int, size: int, ascending: bool = False
    ) -> list[tuple[str, int]]:
        """Return ``size`` groups of a shard from rank ``first`` on, with their counts.

        Those with most members come first, or with fewest. None before or after
        them is read. A group without living members keeps its rank, with 0.
        """

    @abstractmethod
    async def group_count(self) -> int:
        """Return the number of groups."""

    @abstractmethod
    async def membership_count(self) -> int:
        """Return the number of members of all groups."""

    @abstractmethod
    async def channels(self) -> list[str]:
        """Return the channel of every living node, one per node and shard."""

    @abstractmethod
    async def nodes(self) -> list[NodeState]:
        """Return every node that has a lease, also one that has run out."""

    # For whoever operates it

    @abstractmethod
    async def watch(self, channel: str, seconds: float) -> None:
        """Let the renewals of the next so many seconds name ``channel`` as a watcher.

        0 ends it. Nodes then send their events there, see watch.py.
        """

    @abstractmethod
    async def verify(self, cursor: Any, mend: bool = False) -> tuple[Findings, Any]:
        """Compare a page of the store's books, and return the next cursor as well.

        None begins, and ends. Nothing is reported that a change under way explains.
        With ``mend`` the books are made to say what the members' records say, and
        what no living node owns is given to eviction or deleted; should a living
        node hold something else, its renewal finds that out. Raise StoreRebuilding
        while the living write back what was lost.
        """

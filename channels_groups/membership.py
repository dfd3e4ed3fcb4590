"""The local truth: which connections of this node are in which groups."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Iterator, NamedTuple

from .connection import LocalConnection, Message
from .stores.base import Entry, Member

if TYPE_CHECKING:
    from .groups import Connection, ConnectionGroup
    from .receiver import Receiver
    from .state import Viewer
    from .writer import Request

JOINING, JOINED, LEAVING, ENDED = "joining", "joined", "leaving", "ended"


class Membership:
    """One connection in one group, from the wish to join to the last word of it."""

    def __init__(
        self,
        group: ConnectionGroup,
        connection: LocalConnection,
        member: Member,
        hooked: bool,
        shown: bool = False,
    ) -> None:
        self.group = group
        self.connection = connection
        self.member = member
        #: Its consumer has hooks.
        self.hooked = hooked
        #: Its client is shown the group's state.
        self.shown = shown
        #: It wants to be told of changes.
        self.told = hooked or shown
        self.viewer: Viewer | None = None
        self.state = JOINING
        self.revision = 0
        #: The store has said that it is a member, and not yet that it is none.
        self.committed = False
        #: Its client and handlers get nothing any more, whatever the store says.
        self.silent = False
        #: The join on its way to the store.
        self.request: Request | None = None
        #: The latest update on its way to the store.
        self.update: Request | None = None
        #: What arrives between the wish to join and the store's answer.
        self._held: list[Callable[[], None]] = []

    @property
    def public(self) -> Connection:
        return self.show(self.member)

    def show(self, member: Member) -> Connection:
        """Return the public face of it, as it was or is."""
        return self.group.manager.connection(member, self.group, self.connection)

    def deliver(self, action: Callable[[Any], None], argument: Any) -> None:
        """Do ``action(argument)`` if a member, later if it is still to be decided."""
        if self.state is JOINING:
            self._held.append(lambda: action(argument))
        elif not self.silent:
            action(argument)

    def write(self, frame: Message) -> Awaitable[None] | None:
        """Write a frame to a member's client; see LocalConnection.write()."""
        if self.state is JOINING:
            self.deliver(self.connection.write_later, frame)
        elif not self.silent:
            return self.connection.write(frame)
        return None

    def begin(self, request: Request) -> None:
        """Wish to join."""
        self.request = request
        self.state = JOINING
        self.silent = False
        self.connection.memberships[self.group.name] = self

    def admit(self, revision: int) -> None:
        """Be a member from now on."""
        self.state = JOINED
        self.committed = True
        self.revision = revision
        held, self._held = self._held, []
        for action in held:
            action()

    def silence(self) -> None:
        """Receive nothing from now on."""
        self.silent = True
        self._held.clear()
        memberships = self.connection.memberships
        if memberships.get(self.group.name) is self:
            del memberships[self.group.name]

    def end(self) -> None:
        """Be no member, by the store's word."""
        self.state = ENDED
        self.committed = False
        self.silence()


class Lingering(NamedTuple):
    """A membership that this node has let linger; ``until`` by the loop's time."""

    group: str
    member: Member
    until: float


class LocalGroup:
    """A group with members on this node, and the node's place in the layer's groups."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Membership, None] = {}
        #: How many of them the store has, by its answers.
        self.size = 0
        #: The revision up to which hooks have been told; 0: no member has any.
        self.known = 0
        #: The node's channels are in the layer's groups.
        self.entered = False
        #: The layer may have some of them there.
        self.touched = False
        #: The layer may have forgotten them, or soon will.
        self.stale = False
        #: What is to be committed once they are entered, in order.
        self.waiting: deque[Request] = deque()
        #: The layer's groups and the channels of this node that are to be in them.
        self.entries: list[Entry] = []
        #: Where other code's messages to the group arrive.
        self.plain: Receiver | None = None

    @property
    def public(self) -> ConnectionGroup | None:
        """The handle that a member has, with its consumer's manager."""
        member = next(iter(self.members), None)
        return None if member is None else member.group

    def next_audited(self) -> Member | None:
        """Return another member that the store has each time, if there is one."""
        first = next((one for one in self.members if one.committed), None)
        if first is None:
            return None
        self.members[first] = self.members.pop(first)  # Puts it last.
        return first.member

    @property
    def hooked(self) -> bool:
        """Whether a member's hooks are told of changes."""
        return any(one.hooked for one in self.members)

    def write(
        self, frame: Message, exclude: frozenset[str]
    ) -> Iterator[Awaitable[None]]:
        """Send a frame to every member's client; yield what a slow one leaves to do.

        A Receiver goes on with the next member in another task.
        """
        for membership in list(self.members):
            if exclude.isdisjoint(membership.connection.ids):
                rest = membership.write(dict(frame))
                if rest is not None:
                    yield rest

    def put(self, message: Message, exclude: frozenset[str] = frozenset()) -> None:
        """Give a message to every member's handlers."""
        for membership in list(self.members):
            if exclude.isdisjoint(membership.connection.ids):
                membership.deliver(membership.connection.put, dict(message))

    def close(self, code: int | None, reason: str | None) -> None:
        """Close every member's connection."""
        for membership in list(self.members):
            membership.deliver(membership.connection.close_with, (code, reason))

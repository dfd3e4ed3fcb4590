"""Deliberate faults of the library, each of which the oracle has to notice."""

import asyncio

from channels_groups import signals
from channels_groups.evictor import Evictor
from channels_groups.membership import LocalGroup
from channels_groups.node import Node
from channels_groups.shard import Shard
from channels_groups.stores.redis import RedisStore


def break_library(name):
    """Apply the fault of this name; none for the empty name."""
    if name:
        FAULTS[name]()


def lost_twice():
    """Signal the leave of a lost member a second time."""
    announce_loss = Shard.announce_loss

    def announce_twice(self, loss, *reason):
        announce_loss(self, loss, *reason)
        announce_loss(self, loss, *reason)

    Shard.announce_loss = announce_twice


def never_evicted():
    """Leave the members of a dead process where they are."""
    Evictor.begin = lambda self, dead: None


def not_left():
    """Forget to leave for every fifth connection that ends."""
    disconnect = Node._disconnect
    ended = 0

    async def sometimes_disconnect(self, connection):
        nonlocal ended
        ended += 1
        if ended % 5 == 0:
            connection.memberships.clear()
        await disconnect(self, connection)

    Node._disconnect = sometimes_disconnect


def not_destroyed():
    """Never fire group_destroyed."""

    async def fire_nothing(sender, **named):
        return []

    signals.group_destroyed.asend_robust = fire_nothing


def deaf_member():
    """Write to all members but the last one."""
    write = LocalGroup.write

    def write_to_the_others(self, frame, exclude):
        *_, last = self.members
        write(self, frame, exclude | {last.member.id})

    LocalGroup.write = write_to_the_others


def miscounted():
    """Count one too many in larger groups."""
    count = RedisStore.count

    async def count_wrongly(self, group):
        right = await count(self, group)
        return right + (right > 3)

    RedisStore.count = count_wrongly


def told_late():
    """Fire the signals of every tenth change after those of the next ones."""
    announce = Shard._announce
    announced = 0

    def announce_late(self, group, fired, answer, finish=lambda: None, *waiting):
        nonlocal announced
        announced += 1
        if announced % 10 == 0:
            finish()
            later = (self, group, fired, answer, lambda: None, *waiting)
            asyncio.get_running_loop().call_later(1, announce, *later)
        else:
            announce(self, group, fired, answer, finish, *waiting)

    Shard._announce = announce_late


FAULTS = {
    fault.__name__: fault
    for fault in (
        lost_twice,
        never_evicted,
        not_left,
        not_destroyed,
        deaf_member,
        miscounted,
        told_late,
    )
}

"""What the database store keeps. Only the store reads and writes these tables.

Times are microseconds since the epoch by the database's clock (vendors.Clock). No
foreign key is enforced: rows are deleted in batches, by the store alone.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any

from django.db import models

from channels_groups.stores.base import LINGERING

#: Characters of a digest, and of a name's beginning by which groups are listed.
DIGEST = 32
STEM = 100

if TYPE_CHECKING:
    CharField = models.CharField[str, str]
    Integer = models.BigIntegerField[int, int]
    Text = models.TextField[str, str]
    Truth = models.BooleanField[bool, bool]
else:
    CharField = models.CharField


class AsciiField(CharField):
    """A short ASCII text that is compared byte by byte in every database."""

    def db_type(self, connection: Any) -> str | None:
        size = f"varchar({self.max_length})"
        if connection.vendor == "mysql":
            return f"{size} CHARACTER SET ascii COLLATE ascii_bin"
        if connection.vendor == "postgresql":
            return f'{size} COLLATE "C"'
        return super().db_type(connection)


def make_id() -> int:
    """Return a new primary key, known before the row is there."""
    return secrets.randbits(62)


class Book(models.Model):
    """All memberships of one channel layer. Who changes any locks this row."""

    layer = AsciiField(primary_key=True, max_length=100)
    #: Names the present data.
    epoch = AsciiField(max_length=32)
    #: The last revision given; follows the clock.
    revision: Integer = models.BigIntegerField(default=0)
    #: Until then the living nodes write back what was lost.
    rebuilding: Integer = models.BigIntegerField(default=0)
    #: There is data of an earlier epoch to be wiped.
    void: Truth = models.BooleanField(default=False)
    groups: Integer = models.BigIntegerField(default=0)

    #: Where a query annotates it.
    now: int


class Node(models.Model):
    """A node with a lease, or the last answer to one that was evicted.

    One row of each layer is that of the members who linger, in no process.
    """

    id = AsciiField(primary_key=True, max_length=64)
    layer = AsciiField(max_length=100, db_index=True)
    channel: Text = models.TextField()
    process: Text = models.TextField()
    #: The end of the lease; 0: lost.
    deadline: Integer = models.BigIntegerField()
    #: When the row of an evicted node may be deleted; 0 for others.
    evicted_until: Integer = models.BigIntegerField(default=0)
    connections: Integer = models.BigIntegerField(default=0)
    memberships: Integer = models.BigIntegerField(default=0)
    #: Of what was taken from it and it has yet to hear of: [[group's key, connection]].
    taken: Text = models.TextField(default="[]")
    #: The last commit and the last eviction, each with the answer as JSON.
    sequence: Integer = models.BigIntegerField(default=0)
    answers: Text = models.TextField(default="[]")
    evicting: Integer = models.BigIntegerField(default=0)
    eviction: Text = models.TextField(default="")

    now: int


class Group(models.Model):
    """A group that has members."""

    id: Integer = models.BigIntegerField(primary_key=True, default=make_id)
    layer = AsciiField(max_length=100)
    #: A digest of the name.
    key = AsciiField(max_length=DIGEST)
    #: As texts.escape() writes it, and its beginning.
    name: Text = models.TextField()
    stem = AsciiField(max_length=STEM)
    count: Integer = models.BigIntegerField(default=0)
    user_count: Integer = models.BigIntegerField(default=0)
    #: How many members want to be told of changes.
    told: Integer = models.BigIntegerField(default=0)
    #: Of the last change, while somebody is told.
    revision: Integer = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["layer", "key"], name="channels_groups_group_key"
            )
        ]
        indexes = [
            models.Index(fields=["layer", "count", "id"], name="channels_groups_count"),
            models.Index(fields=["layer", "stem", "id"], name="channels_groups_stem"),
        ]


def lingering_id(layer: str) -> str:
    """Return the id of the row of those who linger in a layer."""
    return LINGERING + hashlib.sha256(layer.encode()).hexdigest()[:DIGEST]


class Part(models.Model):
    """A node's members of a group, and its entries in the layer's groups."""

    id: Integer = models.BigIntegerField(primary_key=True, default=make_id)
    node: models.ForeignKey[Node, Node] = models.ForeignKey(
        Node, models.DO_NOTHING, db_constraint=False
    )
    group: models.ForeignKey[Group, Group] = models.ForeignKey(
        Group, models.DO_NOTHING, db_constraint=False, db_index=False
    )
    node_id: str
    group_id: int
    count: Integer = models.BigIntegerField(default=0)
    told: Integer = models.BigIntegerField(default=0)
    entries: Text = models.TextField(default="[]")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["group", "node"], name="channels_groups_part"
            )
        ]


class Membership(models.Model):
    """One connection in one group; sealed where the channel layer encrypts."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    part: models.ForeignKey[Part, Part] = models.ForeignKey(
        Part, models.DO_NOTHING, db_constraint=False, db_index=False
    )
    part_id: int
    connection = AsciiField(max_length=64)
    #: A digest of the user, or "" for nobody.
    user_key = AsciiField(max_length=DIGEST)
    user: Text = models.TextField()
    record: Text = models.TextField()
    told: Truth = models.BooleanField()
    #: Of one that lingers: the end of its grace, and the node that had it. Else 0.
    until: Integer = models.BigIntegerField(default=0)
    owner = AsciiField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["part", "connection"], name="channels_groups_membership"
            )
        ]
        indexes = [
            models.Index(fields=["part", "user_key"], name="channels_groups_user"),
            models.Index(fields=["user_key"], name="channels_groups_of_user"),
            models.Index(fields=["until"], name="channels_groups_until"),
        ]


class Watcher(models.Model):
    """A channel that wants to hear of every event for a while."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    layer = AsciiField(max_length=100)
    channel = AsciiField(max_length=100)
    until: Integer = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["layer", "channel"], name="channels_groups_watcher"
            )
        ]

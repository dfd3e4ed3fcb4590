"""Receivers of the four signals: a log for those who check, notes for the lobby."""

import json
import os
import time

from django.conf import settings

from channels_groups.signals import (
    group_created,
    group_destroyed,
    group_join,
    group_leave,
)

from .lobby import Notes


async def log_created(group, revision, **kwargs):
    """Log that a group came into being."""
    log("created", group, revision)


async def log_join(group, connection, count, user_count, revision, **kwargs):
    """Log that a connection became a member."""
    log("join", group, revision, count, user_count, id=connection.id)


async def log_leave(group, connection, reason, count, user_count, revision, **kwargs):
    """Log that a membership ended, and why."""
    log("leave", group, revision, count, user_count, id=connection.id, reason=reason)


async def log_destroyed(group, revision, **kwargs):
    """Log that a group is gone."""
    log("destroyed", group, revision)


async def tell_lobbies(**kwargs):
    """Let every process know that its list of rooms is out of date."""
    Notes.of_this_loop().send_soon()


def log(event, group, revision, count=None, user_count=None, **fields):
    """Append one line to GROUP_EVENT_LOG, if there is one.

    One write in append mode: lines of several processes never mix.
    """
    if not settings.GROUP_EVENT_LOG:
        return
    line = {"event": event, "group": group.name, **fields}
    line |= {"count": count, "user_count": user_count, "revision": revision}
    line |= {"pid": os.getpid(), "time": time.time()}
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(settings.GROUP_EVENT_LOG, flags, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


group_created.connect(log_created)
group_join.connect(log_join)
group_leave.connect(log_leave)
group_destroyed.connect(log_destroyed)
group_join.connect(tell_lobbies)
group_leave.connect(tell_lobbies)

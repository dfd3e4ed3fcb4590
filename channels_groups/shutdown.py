"""Leaving when the process is told to stop.

uvicorn ends every application in order. daphne cancels them and stops its reactor
as soon as the first has ended; but it waits for what was hooked into its shutdown
(Twisted's ``addSystemEventTrigger("before", "shutdown")``). runserver and others
just end the process, which ``atexit`` sees. For SIGKILL there is the lease.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .node import Node

#: Seconds that a process which was told to stop may take to leave.
TIMEOUT = 5

_nodes: set[Node] = set()


class Hook:
    """A node's place among what is done before the process ends."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.reactor = _find_reactor()
        self.trigger: Any = None
        if self.reactor is not None:
            self.trigger = self.reactor.addSystemEventTrigger(
                "before", "shutdown", self._leave
            )

    def _leave(self) -> Any:
        from twisted.internet.defer import Deferred

        self.trigger = None
        leave = asyncio.wait_for(self.node.shutdown(), TIMEOUT)
        return Deferred.fromFuture(self.node.loop.create_task(leave))


def add(node: Node) -> Hook:
    """Let a node leave before the process ends."""
    if not _nodes:
        atexit.register(_leave_at_exit)
    _nodes.add(node)
    return Hook(node)


def remove(hook: Hook) -> None:
    """Forget a node that has left."""
    if hook.trigger is not None:
        hook.reactor.removeSystemEventTrigger(hook.trigger)
        hook.trigger = None
    _nodes.discard(hook.node)
    if not _nodes:
        atexit.unregister(_leave_at_exit)


def _find_reactor() -> Any:
    """Return Twisted's reactor if this code runs in its thread, else None."""
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is None or not getattr(reactor, "running", False):
        return None
    from twisted.python.threadable import isInIOThread

    in_its_thread: bool = isInIOThread()  # type: ignore[no-untyped-call]
    return reactor if in_its_thread else None


def _leave_at_exit() -> None:
    """Let every node leave that still can, in its own loop."""
    for node in list(_nodes):
        if node.loop.is_closed():
            continue
        leave = asyncio.wait_for(node.shutdown(), TIMEOUT)
        try:
            if node.loop.is_running():
                asyncio.run_coroutine_threadsafe(leave, node.loop).result(TIMEOUT)
            else:
                node.loop.run_until_complete(leave)
        except Exception:
            # The lease covers it; a traceback at exit helps nobody.
            leave.close()
            continue

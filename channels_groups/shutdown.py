"""Leaving when the process is told to stop.

daphne cancels all applications and stops its reactor as soon as the first has ended;
but it waits for what was hooked into its shutdown (Twisted's
``addSystemEventTrigger("before", "shutdown")``). uvicorn ends every application in
order, but that needs the loop for so long that most members leave late; it tells
nobody before. So its handlers of the signals are wrapped, see _watch_uvicorn().
runserver and others just end the process, which ``atexit`` sees. For SIGKILL there is
the lease.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .node import Node

#: Seconds that a process which was told to stop may take to leave.
TIMEOUT = 5
#: Seconds of them before uvicorn is told to stop, if they do not leave sooner.
HEAD_START = 1

Handler = Callable[[int, "FrameType | None"], None]

_nodes: set[Node] = set()
_has_frozen = False


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
        _begin(self.node)  # Now, before the cancelled consumers leave one by one.
        leave = asyncio.wait_for(self.node.shutdown(), TIMEOUT)
        return Deferred.fromFuture(self.node.loop.create_task(leave))


def add(node: Node) -> Hook:
    """Let a node leave before the process ends."""
    if not _nodes:
        atexit.register(_leave_at_exit)
    _nodes.add(node)
    _watch_uvicorn()
    return Hook(node)


def remove(hook: Hook) -> None:
    """Forget a node that has left."""
    global _has_frozen
    if hook.trigger is not None:
        hook.reactor.removeSystemEventTrigger(hook.trigger)
        hook.trigger = None
    _nodes.discard(hook.node)
    if not _nodes:
        atexit.unregister(_leave_at_exit)
        if _has_frozen:  # The process may go on without its server.
            gc.unfreeze()
            _has_frozen = False


def _begin(node: Node) -> asyncio.Future[Any]:
    """Begin to take a node's members out, as Node.leave_all().

    So many objects become garbage as connections end that a full collection would
    come amid the leaves, and take longer than they do. What is frozen it passes over.
    """
    global _has_frozen
    if not _has_frozen:
        gc.freeze()
        _has_frozen = True
    return node.leave_all()


def _find_reactor() -> Any:
    """Return Twisted's reactor if this code runs in its thread, else None."""
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is None or not getattr(reactor, "running", False):
        return None
    from twisted.python.threadable import isInIOThread

    in_its_thread: bool = isInIOThread()  # type: ignore[no-untyped-call]
    return reactor if in_its_thread else None


def _watch_uvicorn() -> None:
    """Take SIGTERM and SIGINT before uvicorn does, if it runs in this thread.

    uvicorn 0.54 (and 0.29) has no public way: the lifespan ends after the last
    connection, the server is unknown to its application, and
    ``loop.add_signal_handler()`` would take the place of its handler. Nobody else's
    handler is wrapped, as it need not end the process. uvicorn takes its handlers out
    when it ends, and ours with them.
    """
    uvicorn = sys.modules.get("uvicorn.server")
    if uvicorn is None or threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        handler: Any = signal.getsignal(number)
        if getattr(handler, "__func__", None) is uvicorn.Server.handle_exit:
            loop = asyncio.get_running_loop()
            signal.signal(number, _begin_before(handler, loop))


def _begin_before(handler: Handler, loop: asyncio.AbstractEventLoop) -> Handler:
    def begin_and_handle(number: int, frame: FrameType | None) -> None:
        if not _nodes or loop.is_closed():
            handler(number, frame)
        else:
            leave = _leave_first(handler, number, frame)
            asyncio.run_coroutine_threadsafe(leave, loop)

    return begin_and_handle


async def _leave_first(handler: Handler, number: int, frame: FrameType | None) -> None:
    """Let members leave before uvicorn needs the loop to end all consumers."""
    loop = asyncio.get_running_loop()
    try:
        leaving = [_begin(node) for node in list(_nodes) if node.loop is loop]
        if leaving:
            await asyncio.wait(leaving, timeout=HEAD_START)
    finally:
        handler(number, frame)


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

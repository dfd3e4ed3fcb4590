"""Leaving when the process is told to stop.

Both servers tell nobody before they end what they serve. daphne cancels all
applications and stops its reactor as soon as the first has ended; uvicorn ends every
application in order. Either needs the loop for so long that most members leave late.
So their handlers of the signals are wrapped, see _watch_server().
Where something else stops daphne's reactor, it still waits for what was hooked into
its shutdown (Twisted's ``addSystemEventTrigger("before", "shutdown")``). Others just
end the process, as runserver does that reloads code; ``atexit`` sees it. For SIGKILL
there is the lease.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Iterator

if TYPE_CHECKING:
    from .node import Node

#: Seconds for which the end of a process waits for its members to leave.
TIMEOUT = 5
#: Seconds before that for which the server is not told, if they do not leave sooner.
HEAD_START = 3

Handler = Callable[[int, "FrameType | None"], None]

_nodes: set[Node] = set()
_has_frozen = False
#: What is done when a node's members are out; until then no garbage is collected.
_leaving: set[asyncio.Future[Any]] = set()


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
    _watch_server()
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

    So many objects come and go with it that the collector would run again and again,
    through all that the process holds, and take as long as the leaves do. What is
    there by now it passes over afterwards, too, as the consumers end.
    """
    global _has_frozen
    if not _has_frozen:
        gc.freeze()
        _has_frozen = True
    leaving = node.leave_all()
    if gc.isenabled() or _leaving:
        gc.disable()
        _leaving.add(leaving)
        leaving.add_done_callback(_collect_again)
    return leaving


def _collect_again(left: asyncio.Future[Any]) -> None:
    if left in _leaving:
        _leaving.remove(left)
        if not _leaving:
            gc.enable()


def _find_reactor() -> Any:
    """Return Twisted's reactor if this code runs in its thread, else None."""
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is None or not getattr(reactor, "running", False):
        return None
    from twisted.python.threadable import isInIOThread

    in_its_thread: bool = isInIOThread()  # type: ignore[no-untyped-call]
    return reactor if in_its_thread else None


def _watch_server() -> None:
    """Take SIGTERM and SIGINT before the server does, if it runs in this thread.

    There is no public way. uvicorn 0.54 (and 0.29): the lifespan ends after the last
    connection, the server is unknown to its application. Twisted 26.10: daphne's
    trigger comes before ours. For both, ``loop.add_signal_handler()`` would take the
    place of their handler. Nobody else's handler is wrapped, as it need not end the
    process. uvicorn takes its handlers out when it ends, and ours with them.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    wrapped = list(_server_handlers())
    for number in (signal.SIGTERM, signal.SIGINT):
        handler: Any = signal.getsignal(number)
        if getattr(handler, "__func__", None) in wrapped:
            loop = asyncio.get_running_loop()
            signal.signal(number, _begin_before(handler, loop))


def _server_handlers() -> Iterator[Handler]:
    """Yield the methods by which the servers that are imported take signals."""
    if uvicorn := sys.modules.get("uvicorn.server"):
        yield uvicorn.Server.handle_exit
    if twisted := sys.modules.get("twisted.internet.base"):
        yield twisted.ReactorBase.sigTerm
        yield twisted.ReactorBase.sigInt


def _begin_before(handler: Handler, loop: asyncio.AbstractEventLoop) -> Handler:
    def begin_and_handle(number: int, frame: FrameType | None) -> None:
        if not _nodes or loop.is_closed():
            handler(number, frame)
        else:
            leave = _leave_first(handler, number, frame)
            asyncio.run_coroutine_threadsafe(leave, loop)

    return begin_and_handle


async def _leave_first(handler: Handler, number: int, frame: FrameType | None) -> None:
    """Let members leave before the server needs the loop to end all consumers."""
    loop = asyncio.get_running_loop()
    try:
        leaving = [_begin(node) for node in list(_nodes) if node.loop is loop]
        if leaving:
            await asyncio.wait(leaving, timeout=HEAD_START)
            for late in leaving:
                _collect_again(late)
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

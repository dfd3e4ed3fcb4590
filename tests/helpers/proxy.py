"""A TCP proxy that drops, delays, refuses and cuts, to put in front of Redis."""

import asyncio
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

CHUNK = 65536
VERB_TIMEOUT = 5
InTransit = asyncio.Queue[tuple[float, bytes]]
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpProxy:
    """
    Forward a port that the kernel chose to the host and port of `target_url`; of
    several, to each in turn.

        with TcpProxy(server.url) as proxy:
            redis.Redis.from_url(proxy.url)

    It runs in a thread of its own, so its verbs work from sync and async tests, and
    each has taken effect when it returns. `heal()` undoes all but `cut()`.
    """

    def __init__(self, *target_url: str) -> None:
        self._target = urlsplit(target_url[0])
        self._targets = itertools.cycle(map(urlsplit, target_url))
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="proxy", daemon=True
        )
        self._server: asyncio.Server | None = None
        self._silent_listener: socket.socket | None = None
        self._links: set[Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0

    def __enter__(self) -> "TcpProxy":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The target's URL with the proxy's address in its place."""
        credentials, at, _ = self._target.netloc.rpartition("@")
        netloc = f"{credentials}{at}127.0.0.1:{self.port}"
        return self._target._replace(netloc=netloc).geturl()

    def start(self) -> None:
        """Listen on a port that the kernel chooses."""
        self._thread.start()
        self._call(self._listen)

    def close(self) -> None:
        """Reset every connection and give the port back."""
        self._call(self._shut_down)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(VERB_TIMEOUT)
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections are open through it now."""
        return self._call(self._count)

    def drop(self) -> None:
        """
        Swallow everything, both ways, without closing anything.

        New connections are accepted and stay silent; an end that closes is not
        heard of on the other side (half-open). What was sent meanwhile arrives
        after `heal()`, as TCP would send it again.
        """
        self._call(self._drop)

    def refuse(self) -> None:
        """Refuse new connections, keeping the port; see `cut()` for the open ones."""
        self._call(self._refuse)

    def delay(self, milliseconds: float) -> None:
        """Deliver everything that much later, in each direction."""
        self._call(self._set_delay, milliseconds / 1000)

    def cut(self) -> int:
        """Reset every open connection (RST) and return how many there were."""
        return self._call(self._cut)

    def heal(self) -> None:
        """Forward everything again, at once."""
        self._call(self._heal)

    # Inside, in the proxy's own thread.

    def _call(self, verb: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(verb(*args), self._loop)
        return future.result(VERB_TIMEOUT)

    async def _count(self) -> int:
        return len(self._links)

    async def _listen(self) -> None:
        listener = self._silent_listener or _bind(self.port)
        self._silent_listener = None
        self._server = await asyncio.start_server(self._accept, sock=listener)
        self.port = listener.getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        # A socket that is bound and does not listen: the kernel refuses
        # connections, and nobody else gets the port.
        self._silent_listener = _bind(self.port)

    async def _drop(self) -> None:
        self._flowing.clear()

    async def _set_delay(self, seconds: float) -> None:
        self._delay = seconds

    async def _heal(self) -> None:
        self._delay = 0.0
        self._flowing.set()
        if self._server is None:
            await self._listen()

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.closed.wait() for link in links))
        return len(links)

    async def _shut_down(self) -> None:
        await self._refuse()
        await self._cut()
        if self._silent_listener is not None:
            self._silent_listener.close()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link = Link(self)
        self._links.add(link)
        try:
            await link.run(reader, writer)
        finally:
            self._links.discard(link)
            link.closed.set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the target, once anything may flow."""
        await self._flowing.wait()
        target = next(self._targets)
        return await asyncio.open_connection(target.hostname, target.port)

    def now(self) -> float:
        return self._loop.time()

    async def flowing(self) -> None:
        """Wait until nothing is dropped."""
        await self._flowing.wait()

    async def transit(self, sent_at: float) -> None:
        """Wait until something that was sent at `sent_at` may arrive."""
        due = sent_at + self._delay
        await asyncio.sleep(max(0, due - self.now()))
        await self._flowing.wait()


class Link:
    """One client's connection and the one to the target that belongs to it."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.closed = asyncio.Event()
        self._proxy = proxy
        self._task = asyncio.current_task()
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._resetting = False
        self._closing = False

    async def run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward both ways until one end closes or `reset()` is called."""
        try:
            self._adopt(writer)
            far_reader, far_writer = await self._proxy.connect()
            self._adopt(far_writer)
            self._start_pump("proxy up", reader, far_writer)
            self._start_pump("proxy down", far_reader, writer)
            done, _ = await asyncio.wait(
                self._pumps, return_when=asyncio.FIRST_COMPLETED
            )
            done.pop().result()
        except (OSError, asyncio.CancelledError):
            # The target refused, an end was reset, or reset() was called: the
            # other end gets a reset too.
            self._resetting = True
        finally:
            await self._close()

    def reset(self) -> None:
        """Close both connections with RST, from outside."""
        if self._task is not None and not self._closing:
            self._task.cancel()

    def _adopt(self, writer: asyncio.StreamWriter) -> None:
        # So that drain() returns when the kernel has everything, and abort() after
        # it loses nothing.
        writer.transport.set_write_buffer_limits(high=0)
        self._writers.append(writer)

    def _start_pump(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        in_transit: InTransit = asyncio.Queue()
        self._pumps += [
            asyncio.create_task(self._collect(reader, in_transit), name=name),
            asyncio.create_task(self._deliver(in_transit, writer), name=name),
        ]

    async def _collect(
        self, reader: asyncio.StreamReader, in_transit: InTransit
    ) -> None:
        """Take what one end sends, and stop taking it while nothing may flow."""
        while data := await reader.read(CHUNK):
            in_transit.put_nowait((self._proxy.now(), data))
            await self._proxy.flowing()
        in_transit.put_nowait((self._proxy.now(), b""))
        # The delivery of the end of file ends the link.
        await asyncio.Event().wait()

    async def _deliver(
        self, in_transit: InTransit, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            sent_at, data = await in_transit.get()
            await self._proxy.transit(sent_at)
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async def _close(self) -> None:
        self._closing = True
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            if self._resetting:
                with suppress(OSError):  # It is closed already.
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE
                    )
            writer.transport.abort()
        closings = (writer.wait_closed() for writer in self._writers)
        await asyncio.gather(*closings, return_exceptions=True)


def _bind(port: int) -> socket.socket:
    """Return a socket bound to `port`, or to a free one, that does not listen yet."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound

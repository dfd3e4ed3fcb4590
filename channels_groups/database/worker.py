"""A thread with a database connection of its own."""

from __future__ import annotations

import queue
import socket
import threading
from concurrent.futures import Future
from typing import Any, Callable, TypeVar

from django.db import InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .vendors import Vendor

T = TypeVar("T")
Job = Callable[[], T]


class Worker:
    """Does one job after the other on its connection.

    Not an Executor: those take nothing more once the interpreter has begun to end,
    when nodes still have to leave. Nor Django's thread for sync code, which a sync
    consumer blocks while it waits for what is done here.
    """

    def __init__(self, using: str, vendor: Vendor, name: str) -> None:
        self._using = using
        self._vendor = vendor
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Job[Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        #: The job under way, whether nobody waits for it any more, and a second handle
        #: of the connection's socket.
        self._current: Future[Any] | None = None
        self._given_up = False
        self._socket: socket.socket | None = None
        #: The connection that was set up for the jobs.
        self._opened: Any = None
        self._stopped: Future[None] = Future()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many jobs are not done."""
        return self._jobs.qsize() + (self._current is not None)

    def submit(self, job: Job[T]) -> Future[T]:
        """Do a job as soon as those before are done."""
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return future

    def give_up(self, future: Future[Any]) -> None:
        """Do not do a job, or break the connection that it hangs on."""
        if future.cancel():
            return
        with self._lock:
            if self._current is not future:
                return
            self._given_up = True
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # It is broken already.

    def stop(self) -> Future[None]:
        """Close the connection and end the thread, after what was submitted."""
        self._jobs.put(None)
        return self._stopped

    # In the thread

    def _run(self) -> None:
        connection = self._make_connection()
        while (item := self._jobs.get()) is not None:
            future, job = item
            if future.set_running_or_notify_cancel():
                self._do(connection, future, job)
        self._close(connection)
        self._stopped.set_result(None)

    def _do(
        self, connection: BaseDatabaseWrapper, future: Future[T], job: Job[T]
    ) -> None:
        with self._lock:
            self._current, self._given_up = future, False
        try:
            result = self._try_twice(connection, job)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        with self._lock:
            self._current = None

    def _try_twice(self, connection: BaseDatabaseWrapper, job: Job[T]) -> T:
        """Do a job again if the connection turns out to have been lost before."""
        is_new = self._opened is None
        try:
            return self._try(connection, job)
        except (OperationalError, InterfaceError):
            if self._is_open(connection):
                raise
            self._close(connection)
            if is_new or self._given_up:
                raise
        return self._try(connection, job)

    def _try(self, connection: BaseDatabaseWrapper, job: Job[T]) -> T:
        if self._opened is None:
            self._close(connection)  # One that could not be prepared.
            connection.ensure_connection()
            with self._lock:
                self._socket = _duplicate_socket(connection)
            self._vendor.prepare(connection)
            self._opened = connection.connection
        return job()

    def _is_open(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether the connection is the one that was opened, and works.

        A transaction that fails leaves another one in the place of a broken one.
        """
        is_same = connection.connection is self._opened is not None
        return is_same and connection.is_usable()

    def _close(self, connection: BaseDatabaseWrapper) -> None:
        self._opened = None
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        connection.close()

    def _make_connection(self) -> BaseDatabaseWrapper:
        """Return this thread's connection, which the store's queries find."""
        connection: BaseDatabaseWrapper = connections.create_connection(self._using)
        settings = connection.settings_dict
        options = self._vendor.options(settings["OPTIONS"])
        connection.settings_dict = {**settings, "OPTIONS": options}
        connections[self._using] = connection
        return connection


def _duplicate_socket(connection: BaseDatabaseWrapper) -> socket.socket | None:
    """Return a handle of the connection's socket that outlives its descriptor.

    psycopg's connections have fileno(); others have timeouts for reading.
    """
    fileno = getattr(connection.connection, "fileno", None)
    if fileno is None:
        return None
    return socket.fromfd(fileno(), socket.AF_INET, socket.SOCK_STREAM)

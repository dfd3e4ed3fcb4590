"""What helps in testing code that uses groups."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable

from .groups import Connection, ConnectionGroup
from .signals import group_created, group_destroyed, group_join, group_leave

SIGNALS = {
    "created": group_created,
    "join": group_join,
    "leave": group_leave,
    "destroyed": group_destroyed,
}


@dataclass(frozen=True)
class GroupEvent:
    """One signal as it was received; None where a signal has no such argument."""

    #: ``"created"``, ``"join"``, ``"leave"`` or ``"destroyed"``.
    name: str
    group: ConnectionGroup
    connection: Connection | None
    reason: str | None
    count: int | None
    user_count: int | None
    revision: int


class capture_group_events:
    """Record the signals of all groups that this process fires.

    ::

        with capture_group_events() as events:
            ...
        assert [event.name for event in events] == ["created", "join"]

    Also to be used with ``async with``. The list grows in the order of the signals,
    and they are fired before set_group() returns: nothing has to be waited for.
    """

    def __init__(self) -> None:
        self._events: list[GroupEvent] = []
        self._receivers: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> list[GroupEvent]:
        self._events = []
        for name, signal in SIGNALS.items():
            self._receivers[name] = receiver = self._make_receiver(name)
            signal.connect(receiver, weak=False)
        return self._events

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, receiver in self._receivers.items():
            SIGNALS[name].disconnect(receiver)
        self._receivers.clear()

    async def __aenter__(self) -> list[GroupEvent]:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _make_receiver(self, name: str) -> Callable[..., Any]:
        events = self._events

        # Async: it runs in the event loop, in the order of the signals.
        async def receive(
            group: ConnectionGroup,
            revision: int,
            connection: Connection | None = None,
            reason: str | None = None,
            count: int | None = None,
            user_count: int | None = None,
            **kwargs: Any,
        ) -> None:
            events.append(
                GroupEvent(name, group, connection, reason, count, user_count, revision)
            )

        return receive

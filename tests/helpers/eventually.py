"""Wait for something to become true, with a deadline and a telling failure."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.02
TRUE = object()


def eventually(
    probe: Callable[[], Any],
    *,
    equals: Any = TRUE,
    timeout: float = 10,
    ignoring: tuple[type[Exception], ...] = (),
) -> Any:
    """
    Call `probe` until its value is true, or equal to `equals`, and return the value.

    Raises AssertionError with the last value, or the last exception of a kind that
    was to be ignored, when `timeout` seconds have passed.
    """
    watch = Watch(equals, timeout)
    while True:
        try:
            value = probe()
        except ignoring as error:
            watch.failed(error)
        else:
            if watch.wants(value):
                return value
        watch.check_deadline()
        time.sleep(INTERVAL)


async def aeventually(
    probe: Callable[[], Any],
    *,
    equals: Any = TRUE,
    timeout: float = 10,
    ignoring: tuple[type[Exception], ...] = (),
) -> Any:
    """Do as `eventually()` without blocking the loop; `probe` may be async."""
    watch = Watch(equals, timeout)
    while True:
        try:
            value = probe()
            if inspect.isawaitable(value):
                value = await value
        except ignoring as error:
            watch.failed(error)
        else:
            if watch.wants(value):
                return value
        watch.check_deadline()
        await asyncio.sleep(INTERVAL)


class Watch:
    """Remember what was seen last, and raise it when the deadline has passed."""

    def __init__(self, equals: Any, timeout: float) -> None:
        self.equals = equals
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.last: Any = None
        self.error: Exception | None = None

    def wants(self, value: Any) -> bool:
        self.last, self.error = value, None
        return bool(value) if self.equals is TRUE else value == self.equals

    def failed(self, error: Exception) -> None:
        self.error = error

    def check_deadline(self) -> None:
        if time.monotonic() < self.deadline:
            return
        wanted = "true" if self.equals is TRUE else repr(self.equals)
        seen = f"raised {self.error!r}" if self.error else f"was {self.last!r}"
        raise AssertionError(
            f"not {wanted} within {self.timeout} s; at last it {seen}"
        ) from self.error

"""What happens, for whoever counts it: nothing is done while nobody does.

``metrics.py`` puts a meter into METERS when it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stores.base import BaseStore


class Meter:
    """Is told of what happens in this process; does nothing with it."""

    def store_made(self, alias: str, store: BaseStore) -> None:
        """A store was made for a channel layer alias."""

    def fired(self, alias: str, name: str, reason: str | None) -> None:
        """A signal fires: created, join, update, leave with its reason, destroyed."""

    def evicted(self, alias: str) -> None:
        """A lost process was evicted."""

    def closed_slow(self, alias: str) -> None:
        """A connection was closed because it was too far behind."""

    def unavailable(self, alias: str, shard: int) -> None:
        """A node finds that a shard of the store does not answer any more."""

    def available(self, alias: str, shard: int) -> None:
        """A node finds that it answers again, or ends without having found that."""


METERS: list[Meter] = []

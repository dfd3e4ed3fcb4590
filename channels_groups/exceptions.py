"""The errors that the library raises for a reason of its own."""

from __future__ import annotations

from channels.exceptions import DenyConnection


class GroupError(Exception):
    """An operation on a group could not be carried out."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class GroupRejected(GroupError, DenyConnection):  # type: ignore[misc]
    """The group manager does not admit this connection to the group.

    Left uncaught in ``connect()`` it refuses the handshake (403).
    """


class GroupFull(GroupRejected):
    """The group has as many members as it may have."""


class ConnectionClosed(GroupError):
    """The connection is gone."""


class StoreUnavailable(GroupError):
    """The membership store did not answer in time."""

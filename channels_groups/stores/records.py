"""How Redis stores write a member: ``<length of user>:<user><time of join><rest>``.

The scripts have to find the user and the time in it; all else is msgpack for Python.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any, Sequence

import msgpack

from .base import Confirm, Join, Member, Operation, Update
from .cipher import make_cipher

#: Channel names of channels_redis, core and any: random digits at their end.
_core = re.compile(r"specific\.([0-9a-f]{32})!([0-9a-f]{32})")
_other = re.compile(r"(.*)([0-9a-f]{32})", re.DOTALL)
_time = struct.Struct(">d")


class Records:
    """Pack and unpack members, sealed where the channel layer encrypts."""

    def __init__(self, keys: Sequence[str | bytes] | None) -> None:
        self._cipher = make_cipher(keys)

    def pack(self, operation: Operation) -> list[Any]:
        """Return the operation as lua/commit.lua takes it."""
        member = operation.member
        user = False if member.user_id is None else self.seal_user(member.user_id)
        about = [operation.group, member.id, user, int(operation.told)]
        if isinstance(operation, Join):
            limit = -1 if operation.limit is None else operation.limit
            resume = False if operation.resume is None else operation.resume
            return ["join", *about, self._record(member, user), limit, resume]
        if isinstance(operation, Update):
            return ["update", *about, self._record(member, user)]
        if isinstance(operation, Confirm):
            return ["confirm", *about]
        return ["leave", *about, operation.grace]

    def unpack(self, id: bytes, record: bytes) -> Member:
        """Return the member of a record."""
        digits, _, rest = record.partition(b":")
        user_id = None
        if digits:
            user_id = self.open_user(rest[: int(digits)])
            rest = rest[int(digits) :]
        [joined_at] = _time.unpack(rest[: _time.size])
        channel, *about = msgpack.unpackb(self._cipher.open(rest[_time.size :]))
        info = json.loads(about[0]) if about else {}
        return Member(id.decode(), _unpack_channel(channel), user_id, info, joined_at)

    def open_user(self, user: bytes) -> str:
        """Return the user id of a stored user."""
        return self._cipher.open(user).decode()

    def seal_user(self, user_id: str) -> bytes:
        """Return what a user id is stored as."""
        return self._cipher.seal(user_id.encode())

    def _record(self, member: Member, user: bytes | bool) -> bytes:
        about = [_pack_channel(member.channel_name)]
        if member.info:
            about.append(json.dumps(member.info, separators=(",", ":")))
        rest = self._cipher.seal(msgpack.packb(about))
        rest = _time.pack(member.joined_at) + rest
        if isinstance(user, bytes):
            return b"%d:%b%b" % (len(user), user, rest)
        return b":" + rest


def _pack_channel(channel: str) -> Any:
    """Halve the hexadecimal digits: below 64 bytes a record is kept compactly."""
    if found := _core.fullmatch(channel):
        return bytes.fromhex(found[1] + found[2])
    if found := _other.fullmatch(channel):
        return [found[1], bytes.fromhex(found[2])]
    return channel


def _unpack_channel(channel: Any) -> str:
    if isinstance(channel, bytes):
        digits = channel.hex()
        return f"specific.{digits[:32]}!{digits[32:]}"
    return channel if isinstance(channel, str) else f"{channel[0]}{channel[1].hex()}"

"""How names, users and records are written: as ASCII, which every database keeps."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Sequence

from channels_groups.stores.base import Member
from channels_groups.stores.cipher import make_cipher

from .models import DIGEST


def escape(text: str) -> str:
    """Return ``text`` as JSON has it between the quotes, character by character.

    So what begins alike begins alike afterwards, and nothing is above "~".
    """
    return json.dumps(text)[1:-1].replace("\x7f", "\\u007f")


def unescape(text: str) -> str:
    """Undo escape()."""
    plain: str = json.loads(f'"{text}"')
    return plain


def digest(text: str) -> str:
    """Return a short text that no other text has."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST // 2).hexdigest()


class Records:
    """Write and read members, sealed where the channel layer encrypts."""

    def __init__(self, keys: Sequence[str | bytes] | None) -> None:
        self._sealed = bool(keys)
        self._cipher = make_cipher(keys)

    def user(self, user_id: str | None) -> str:
        """Return a user as it is stored: equal users alike, nobody as ""."""
        return "" if user_id is None else self._write(user_id)

    def open_user(self, user: str) -> str | None:
        """Return the user id of a stored user."""
        return self._read(user) if user else None

    def record(self, member: Member) -> str:
        """Return the rest of a member."""
        return self._write([member.channel_name, member.joined_at, member.info])

    def member(self, id: str, user: str, record: str) -> Member:
        """Return the member that was stored."""
        channel_name, joined_at, info = self._read(record)
        return Member(id, channel_name, self.open_user(user), info, joined_at)

    def _write(self, value: Any) -> str:
        text = json.dumps(value, separators=(",", ":"))
        if self._sealed:
            text = base64.b64encode(self._cipher.seal(text.encode())).decode()
        return text

    def _read(self, text: str) -> Any:
        if self._sealed:
            text = self._cipher.open(base64.b64decode(text)).decode()
        return json.loads(text)

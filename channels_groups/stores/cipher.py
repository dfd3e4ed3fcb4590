"""Keep what the store holds of people unreadable where the channel layer encrypts."""

from __future__ import annotations

import hashlib
from typing import Sequence


class Cipher:
    """Seal records and user ids with the layer's ``symmetric_encryption_keys``.

    AES-SIV: deterministic, so that equal user ids have equal seals and can be
    counted, and without a time limit (the layer's own ends with a message's
    expiry). The first key seals, every key opens, as in channels_redis; until
    all processes have the same first key, one user may count twice.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        self._ciphers = [AESSIV(_derive(key)) for key in keys]

    def seal(self, data: bytes) -> bytes:
        return self._ciphers[0].encrypt(data, None)

    def open(self, data: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        for cipher in self._ciphers:
            try:
                return cipher.decrypt(data, None)
            except InvalidTag:
                continue
        raise ValueError("None of symmetric_encryption_keys opens a stored record.")


class NoCipher:
    """Leave everything as it is."""

    def seal(self, data: bytes) -> bytes:
        return data

    def open(self, data: bytes) -> bytes:
        return data


def make_cipher(keys: Sequence[str | bytes] | None) -> Cipher | NoCipher:
    """Return the cipher for a layer's ``symmetric_encryption_keys``."""
    return Cipher(keys) if keys else NoCipher()


def _derive(key: str | bytes) -> bytes:
    if isinstance(key, str):
        key = key.encode()
    return hashlib.sha512(b"channels_groups" + key).digest()

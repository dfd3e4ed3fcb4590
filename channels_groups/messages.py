"""What is sent to connections, checked where a user gave it."""

from __future__ import annotations

from .connection import Message

#: RFC 6455: a close frame holds 125 bytes, two of them for the code.
MAX_REASON = 123


def close_message(kind: str, code: int | None, reason: str | None) -> Message:
    """Return the message that closes connections, or raise TypeError or ValueError."""
    if code is not None and (not isinstance(code, int) or isinstance(code, bool)):
        raise TypeError(f"A close code must be an int, not {type(code).__name__}.")
    if code is not None and code != 1000 and not 3000 <= code <= 4999:
        raise ValueError(f"A close code is 1000 or from 3000 to 4999, not {code}.")
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"A close reason must be a str, not {type(reason).__name__}.")
    if reason is not None and len(reason.encode()) > MAX_REASON:
        raise ValueError(f"A close reason has at most {MAX_REASON} bytes.")
    return {"type": kind, "code": code, "reason": reason}


def to_payload(text_data: str | None, bytes_data: bytes | None) -> Message:
    """Return the frame's part of a message, or raise TypeError or ValueError."""
    if (text_data is None) == (bytes_data is None):
        raise ValueError("Give one of text_data and bytes_data.")
    if text_data is not None:
        if not isinstance(text_data, str):
            raise TypeError(f"text_data must be a str, not {type(text_data).__name__}.")
        return {"text": text_data}
    if not isinstance(bytes_data, bytes):
        raise TypeError(f"bytes_data must be bytes, not {type(bytes_data).__name__}.")
    return {"bytes": bytes_data}


def check_event(message: Message) -> None:
    """Raise ValueError unless it is a Channels message."""
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError('An event is a dict with a str under "type".')

"""What a room's client may say: JSON objects with a type, checked here."""

import json

MAX_TEXT = 4000

#: The fields of each type, and the classes that each may have.
FIELDS = {
    "say": {"text": (str,)},
    "whisper": {"to": (str,), "text": (str,)},
    "move": {"room": (str, type(None))},
    "kick": {"id": (str,)},
    "who": {},
    "typing": {"typing": (bool,)},
}


NAMES = {str: "a string", bool: "true or false", type(None): "null"}


class Unusable(Exception):
    """A message that cannot be used: a short code, and what is wrong with it."""

    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


def parse(text):
    """Return the type and the fields of a message; raise Unusable for any other.

    ``text`` is None for a binary frame. Fields beyond the known ones are dropped.
    """
    content = decode(text)
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise Unusable("unknown", f"The type must be one of {', '.join(FIELDS)}.")
    return kind, {
        field: check(kind, field, content, classes)
        for field, classes in FIELDS[kind].items()
    }


def decode(text):
    """Return the object that ``text`` is the JSON of."""
    if text is None:
        raise Unusable("malformed", "A message is a text frame.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable("malformed", "A message is JSON.") from error
    if not isinstance(content, dict):
        raise Unusable("malformed", "A message is a JSON object.")
    return content


def check(kind, field, content, classes):
    """Return one field, if it is there, of its class and of a sensible length."""
    if field not in content:
        raise Unusable("invalid", f"{kind!r} needs the field {field!r}.")
    value = content[field]
    if not isinstance(value, classes):
        names = " or ".join(NAMES[one] for one in classes)
        raise Unusable("invalid", f"{field!r} must be {names}.")
    if field == "text" and not value.strip():
        raise Unusable("invalid", "The text is empty.")
    if field == "text" and len(value) > MAX_TEXT:
        raise Unusable("too-long", f"A text has at most {MAX_TEXT} characters.")
    return value

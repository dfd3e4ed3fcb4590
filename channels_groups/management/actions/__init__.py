"""The actions of ``manage.py groups``, each with its arguments, by name."""

from .base import Action, Options
from .close import Close
from .list import List
from .processes import Processes
from .send import Send
from .show import Show
from .verify import Verify
from .watch import Watch

ACTIONS: dict[str, type[Action]] = {
    "list": List,
    "show": Show,
    "watch": Watch,
    "send": Send,
    "close": Close,
    "processes": Processes,
    "verify": Verify,
}

__all__ = ["ACTIONS", "Action", "Options"]

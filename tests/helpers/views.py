"""What a client makes of the messages about a group, as the documentation has it."""

from typing import Any

Message = dict[str, Any]


class View:
    """The members, or None, and the counts, as they were shown last.

    gaps: how many changes did not follow on what was shown before.
    """

    def __init__(self) -> None:
        self.revision: int | None = None
        self.members: dict[str, Message] | None = None
        self.count: int | None = None
        self.user_count: int | None = None
        self.gaps = 0

    def take(self, message: Message) -> None:
        """Take in a group.state or a group.change; nothing else changes a view."""
        if message["type"] == "group.state":
            members = message["members"]
            self.members = members and {one["id"]: one for one in members}
        elif message["type"] == "group.change":
            self.gaps += message["previous"] != self.revision
            for one in [*message["joined"], *message["updated"]]:
                assert self.members is not None
                self.members[one["id"]] = one
            for id in message["left"]:
                assert self.members is not None
                self.members.pop(id, None)
        else:
            return
        self.revision = message["revision"]
        self.count, self.user_count = message["count"], message["user_count"]

    @property
    def facts(self) -> tuple[Any, ...]:
        """Return all members with their users and info, and the two counts."""
        members = self.members and {
            id: (one["user_id"], one["info"]) for id, one in self.members.items()
        }
        return members, self.count, self.user_count

"""The demo's policy, and its two questions about rooms."""

from channels_groups.manager import GroupManager


class RoomManager(GroupManager):
    """Reject rooms called ``closed-...``, let three into ``small-...``."""

    async def aget_group(self, name, connection):
        """Admit ``connection`` to the room, unless the room is closed."""
        if name.startswith("closed-"):
            return None
        return await super().aget_group(name, connection)

    def max_members(self, group):
        """Return how many the room may hold, None for any number."""
        if group.name.startswith("small-"):
            return 3
        return super().max_members(group)

    async def list_rooms(self):
        """Return ``{name, count, users}`` of each live room, fullest first.

        ``users`` is the number of different display names.
        """
        rooms = []
        async for group in self.agroups():
            count, users = await group.acount(), await group.auser_count()
            if count:  # else its last member left since it was listed
                rooms.append({"name": group.name, "count": count, "users": users})
        return sorted(rooms, key=lambda room: (-room["count"], room["name"]))

    async def list_members(self, group):
        """Return ``{count, users, members}`` of one room, of one reading of it."""
        members, users = [], set()
        async for member in group:
            users.add(member.user_id)
            members.append(
                {
                    "id": member.id,
                    "name": member.info.get("name", ""),
                    "process": member.info.get("process", ""),
                }
            )
        return {"count": len(members), "users": len(users), "members": members}

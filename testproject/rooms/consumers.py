"""A visitor of a room: what the demo's room page talks to."""

import contextlib
from urllib.parse import parse_qs

from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings

from channels_groups.consumers import (
    AsyncGroupConsumerMixin,
    AsyncGroupStateConsumerMixin,
)
from channels_groups.exceptions import (
    ConnectionClosed,
    GroupFull,
    GroupRejected,
    StoreUnavailable,
)

from .protocol import Unusable, parse

MAX_NAME = 100
KICKED = 4000
TRY_AGAIN_LATER = 4013  # what the library sends where daphne refuses 1013
UNAVAILABLE = "The rooms are out of reach for the moment."


class BaseRoomConsumer(AsyncGroupConsumerMixin, AsyncJsonWebsocketConsumer):
    """One WebSocket in at most one room at a time.

    ``protocol`` says what the client may send; anything else is answered by an
    ``error``, and the connection stays open.
    """

    async def connect(self):
        """Join the room of the path, then accept; refuse where it lets nobody in."""
        if len(self.get_group_user_id()) > MAX_NAME:
            raise DenyConnection
        try:
            await self.set_group(self.scope["url_route"]["kwargs"]["room"])
            welcome = await self.welcome()
        except (TypeError, ValueError, ConnectionClosed) as error:
            raise DenyConnection from error
        except StoreUnavailable:
            await self.accept()
            await self.refuse("unavailable", UNAVAILABLE)
            await self.close(TRY_AGAIN_LATER)
        else:
            await self.accept()
            await self.send_json(welcome)

    def get_group_user_id(self):
        """Return the display name that the client gave."""
        query = parse_qs(self.scope["query_string"].decode(errors="replace"))
        return query.get("name", [""])[0].strip() or "guest"

    def get_group_info(self):
        """Return what the other members see of this one."""
        return {"name": self.get_group_user_id(), "process": self.process}

    @property
    def process(self):
        """Return the name of the process that holds this connection."""
        return settings.DEMO_PROCESS_NAME

    # From the client.

    async def receive(self, text_data=None, bytes_data=None):
        """Do what the client asks, or say why not."""
        try:
            kind, fields = parse(text_data)
            await getattr(self, f"do_{kind}")(**fields)
        except Unusable as error:
            await self.refuse(error.code, error.detail)
        except GroupFull:
            await self.refuse("full", "The room is full.")
        except GroupRejected:
            await self.refuse("rejected", "The room is closed.")
        except ConnectionClosed:
            await self.refuse("gone", "This member is gone.")
        except StoreUnavailable:
            await self.refuse("unavailable", UNAVAILABLE)

    async def refuse(self, code, detail):
        """Answer a message that had no effect."""
        await self.send_json({"type": "error", "error": code, "detail": detail})

    async def do_say(self, text):
        """Say something to everybody in the room, the speaker included."""
        await self.current_room().asend_json(self.speech("said", text))

    async def do_whisper(self, to, text):
        """Say something to one member."""
        member = await self.member(to)
        await member.asend_json(self.speech("whispered", text))

    async def do_kick(self, id):
        """Close a member's connection."""
        member = await self.member(id)
        await member.aclose(code=KICKED, reason="kicked")

    async def do_move(self, room):
        """Go to another room, or out of all."""
        try:
            await self.set_group(room)
        except (TypeError, ValueError) as error:
            raise Unusable("invalid", str(error)) from error
        await self.send_json(await self.welcome())

    async def do_who(self):
        """Say who is in the room."""
        await self.send_json(
            {"type": "who", "room": self.group_name, **await self.describe_room()}
        )

    async def do_typing(self, typing):
        """Let the others see that this one is typing, or not any more."""
        await self.update_info({"typing": typing})

    # Helpers.

    async def send_json(self, content, close=False):
        """Send to the client; one that has vanished will be disconnected next.

        On its way there daphne raises RuntimeError, other servers OSError.
        """
        with contextlib.suppress(OSError, RuntimeError):
            await super().send_json(content, close)

    async def welcome(self):
        """Return what a client must know of the room that it is in now."""
        room = await self.describe_room()
        del room["users"]
        return {
            "type": "welcome",
            "id": self.connection.id,
            "room": self.group_name,
            "process": self.process,
            **room,
        }

    async def describe_room(self):
        """Return count, users and members of the current room."""
        if self.group is None:
            return {"count": 0, "users": 0, "members": []}
        return await self.group.manager.list_members(self.group)

    def current_room(self):
        """Return the group that this connection is in."""
        if self.group is None:
            raise Unusable("no-room", "You are in no room.")
        return self.group

    async def member(self, id):
        """Return the member of the current room with this id."""
        member = await self.current_room().aget(id)
        if member is None:
            raise Unusable("gone", "Nobody in this room has this id.")
        return member

    def speech(self, kind, text):
        """Return a message of this client to others."""
        name = self.get_group_user_id()
        return {"type": kind, "id": self.connection.id, "name": name, "text": text}


class RoomConsumer(BaseRoomConsumer):
    """What others than the page talk to: a client that hears who comes and goes.

    Who disconnects has left: only the page is given the time to be loaded again.
    """

    group_grace = 0

    async def group_changed(self, change):
        """Tell the client who came and who went, and how many are left of it."""
        if change.group != self.group:
            return  # a late word about a room that it has left
        # Within one change everybody joined before anybody left.
        for kind, members in (("join", change.joined), ("leave", change.left)):
            for member in members:
                if member.id != self.connection.id:
                    name = member.info.get("name", "")
                    notice = {"id": member.id, "name": name, "count": change.count}
                    await self.send_json({"type": kind, **notice})


class LiveRoomConsumer(AsyncGroupStateConsumerMixin, BaseRoomConsumer):
    """What the room page itself talks to: a client that keeps the state of its room.

    It gets ``group.state`` and ``group.change`` in the place of join and leave, and
    nothing is made of changes for it beside: it has no hooks.
    """

    def get_group_member(self, connection):
        """Return what everybody may see of everybody."""
        info = connection.info
        return {
            "name": info.get("name", ""),
            "process": info.get("process", ""),
            "typing": info.get("typing", False),
        }


async def room_consumer(scope, receive, send):
    """Serve the page, which asks for ``live=1``, or whoever else speaks to a room."""
    query = parse_qs(scope["query_string"].decode(errors="replace"))
    consumer = LiveRoomConsumer if query.get("live") == ["1"] else RoomConsumer
    return await consumer()(scope, receive, send)

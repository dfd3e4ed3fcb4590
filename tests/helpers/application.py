"""The demo with ways to harm it, served as tests.helpers.application:application.

Over HTTP: /test/rooms/ tells all that this process believes, /test/tasks/ what the
library still does in it, /test/block/?seconds=3 blocks its event loop. A room's
WebSocket with &fail=connect or &fail=joined raises in connect(), before or after it
has joined, one with &slow=3 takes three seconds for disconnect(), and each takes two
more messages: {"type": "fail", "in": ...} raises where it says, {"type": "where"} asks
for the room without asking the store.

BROKEN in the environment names a deliberate fault of the library, see broken.py.
"""

import asyncio
import gc
import json
import os
import time
from pathlib import Path
from urllib.parse import parse_qs

from testproject.asgi import application as demo  # first: it loads the apps

from channels.routing import URLRouter  # isort: skip
from django.urls import re_path  # isort: skip

import channels_groups
from channels_groups.connection import TRY_AGAIN_LATER
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group_manager
from channels_groups.node import find_nodes
from testproject.rooms.consumers import RoomConsumer

from .broken import break_library

PACKAGE = str(Path(channels_groups.__file__).parent)

break_library(os.environ.get("BROKEN", ""))


class Deliberate(Exception):
    """Raised because a test asked for it."""


class FragileRoomConsumer(RoomConsumer):
    """A room's visitor whose handlers raise when they are told to.

    Its name may be "user.anything": connections of one user. It is waited for as the
    demo's page is.
    """

    group_grace = None
    fails_in_disconnect = False

    async def connect(self):
        """Join as the demo does, and raise before or after it."""
        if self.failure == "connect":
            raise Deliberate("in connect()")
        await super().connect()
        if self.failure == "joined":
            raise Deliberate("in connect(), having joined")

    async def disconnect(self, code):
        """Take as long as told, and raise if told to."""
        await super().disconnect(code)
        await asyncio.sleep(float(self.query.get("slow", ["0"])[0]))
        if self.fails_in_disconnect:
            raise Deliberate("in disconnect()")

    async def receive(self, text_data=None, bytes_data=None):
        """Take the two messages more."""
        message = json.loads(text_data)
        if message["type"] == "where":
            here = {"id": self.connection.id, "room": self.group_name}
            await self.send_json({"type": "here", **here})
        elif message["type"] == "fail":
            await self.fail(message["in"])
        else:
            await super().receive(text_data, bytes_data)

    async def fail(self, where):
        """Raise in a handler of the client, of a group event, or at the end.

        "elsewhere": as a member that turns out to be another process's.
        """
        if where == "receive":
            raise Deliberate("in receive()")
        if where == "elsewhere":
            self._connection.give_way(TRY_AGAIN_LATER)
        if where == "group":
            await self.connection.asend_event({"type": "deliberate.failure"})
        if where == "nobody":
            await self.connection.asend_event({"type": "nobody.handles.this"})
        if where == "disconnect":
            self.fails_in_disconnect = True
            await self.close()

    async def deliberate_failure(self, message):
        """Handle an event by raising."""
        raise Deliberate("in a group's handler")

    @property
    def failure(self):
        """Where the client wants it to raise while it connects."""
        return self.query.get("fail", [""])[0]

    @property
    def query(self):
        """What the client's address asks for."""
        return parse_qs(self.scope["query_string"].decode())

    def get_group_user_id(self):
        """Return the user of a name like user.connection."""
        return super().get_group_user_id().partition(".")[0]

    def get_group_info(self):
        """Return the whole name."""
        return {"name": super().get_group_user_id(), "process": self.process}


async def tell_rooms(query):
    """Return every group with all that can be asked of it."""
    manager = get_group_manager()
    rooms = {}
    async for group in manager.agroups():
        members = {member.id: member.info["name"] async for member in group}
        rooms[group.name] = {
            "members": members,
            "count": await group.acount(),
            "user_count": await group.auser_count(),
            "users": sorted(await group.ausers()),
            "exists": await group.aexists(),
        }
    return {
        "rooms": rooms,
        "group_count": await manager.agroup_count(),
        "membership_count": await manager.amembership_count(),
    }


async def tell_tasks(query):
    """Return what is left of the library in this process."""
    gc.collect()
    tasks = [task for task in asyncio.all_tasks() if is_ours(task)]
    return {
        "tasks": sorted(task.get_name() for task in tasks),
        "connections": sum(len(one.connections) for one in find_nodes("default")),
        "nodes": len(find_nodes("default")),
    }


async def block(query):
    """Let the event loop do nothing at all for a while."""
    time.sleep(float(query["seconds"][0]))
    return {}


def is_ours(task):
    """Whether a task runs code of the library, other than a consumer."""
    code = task.get_coro().cr_code
    return code.co_filename.startswith(PACKAGE) and code.co_name != "__call__"


VIEWS = {"/test/rooms/": tell_rooms, "/test/tasks/": tell_tasks, "/test/block/": block}

fragile_rooms = URLRouter(
    [re_path(r"\Aws/rooms/(?P<room>(?s:.+))/\Z", FragileRoomConsumer.as_asgi())]
)


async def application(scope, receive, send):
    """Serve the additions, and the demo for all else."""
    path = scope.get("path", "")
    if scope["type"] == "http" and path in VIEWS:
        await answer(VIEWS[path], scope, send)
    elif scope["type"] == "websocket" and path.startswith("/ws/rooms/"):
        await fragile_rooms(scope, receive, send)
    else:
        await demo(scope, receive, send)


async def answer(view, scope, send):
    """Send what a view returns as JSON; 503 where the store is away."""
    try:
        status, content = 200, await view(parse_qs(scope["query_string"].decode()))
    except StoreUnavailable as error:
        status, content = 503, {"error": str(error)}
    headers = [(b"content-type", b"application/json")]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    body = json.dumps(content).encode()
    await send({"type": "http.response.body", "body": body})

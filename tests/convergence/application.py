"""The server of the convergence test: rooms with state, on a channel layer that fails.

A WebSocket takes {"do": "join" | "leave" | "update", ...} and answers each with
{"type": "done", "number"}, with "groups" if it was refused. Over HTTP
/convergence/faults/ says what becomes of the messages that tell of changes,
/convergence/truth/ what the store has, and /convergence/signals/ of whose joins and
leaves this process has told since then.
"""

import asyncio
import json
import random
from urllib.parse import parse_qs

from testproject.asgi import application as demo  # first: it loads the apps

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # isort: skip
from channels.layers import get_channel_layer  # isort: skip

from channels_groups.consumers import AsyncGroupStateConsumerMixin
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import GroupManager, get_group_manager
from channels_groups.signals import group_join, group_leave
from channels_groups.state import States


class Faults:
    """What becomes of a message: lost, late, or sent twice, each with a chance."""

    def __init__(self):
        self.random = random.Random(0)
        self.lost = self.late = self.twice = self.forgotten = 0.0
        self.tasks = set()

    def set(self, seed, lost, late, twice, forgotten):
        """Begin anew; ``forgotten``: what a node itself changes, and does not note."""
        self.random = random.Random(seed)
        self.lost, self.late, self.twice = float(lost), float(late), float(twice)
        self.forgotten = float(forgotten)

    async def group_send(self, send, group, message):
        """Send a message, or not, or later."""
        if message["type"] != "groups.change":
            await send(group, message)
            return
        if self.random.random() < self.lost:
            return
        copies = 2 if self.random.random() < self.twice else 1
        for _ in range(copies):
            late = self.random.random() < self.late
            pause = self.random.uniform(0, 0.7) if late else 0
            task = asyncio.create_task(self.send_after(pause, send, group, message))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def send_after(self, pause, send, group, message):
        await asyncio.sleep(pause)
        await send(group, message)


FAULTS = Faults()
#: (user, "join" or "leave", group) of each signal.
SIGNALS = []
take_own = States.take_own


def take_own_or_not(self, group, segment):
    """Note what this node has changed, unless it is to learn it from the layer."""
    if FAULTS.random.random() >= FAULTS.forgotten:
        take_own(self, group, segment)


def break_layer():
    """Put the faults between the library and the layer."""
    layer = get_channel_layer()
    if "group_send" not in vars(layer):
        send = layer.group_send
        layer.group_send = lambda *args: FAULTS.group_send(send, *args)


class Manager(GroupManager):
    """Lets everybody in everywhere, unlike the demo's."""


class Visitor(AsyncGroupStateConsumerMixin, AsyncJsonWebsocketConsumer):
    group_manager = Manager()

    async def connect(self):
        break_layer()
        self.user = parse_qs(self.scope["query_string"].decode())["user"][0]
        self.facts = {"mood": 0}
        await self.accept()

    def get_group_user_id(self):
        return self.user

    def get_group_info(self):
        return self.facts

    async def receive_json(self, content, **kwargs):
        done = {"type": "done", "number": content["number"]}
        try:
            await self.do(**content["order"])
        except StoreUnavailable:
            done["groups"] = sorted(self.joined_groups)
        await self.send_json(done)

    async def do(self, kind, group=None, mood=None):
        if kind == "join":
            await self.join_group(group)
        elif kind == "leave":
            await self.leave_group(group)
        else:
            self.facts = {"mood": mood}
            await self.update_info(self.facts)


async def note_join(group, connection, **kwargs):
    SIGNALS.append((connection.user_id, "join", group.name))


async def note_leave(group, connection, **kwargs):
    SIGNALS.append((connection.user_id, "leave", group.name))


async def tell_signals(query):
    return SIGNALS


async def set_faults(query):
    SIGNALS.clear()
    FAULTS.set(**{key: values[0] for key, values in query.items()})
    return {}


async def tell_truth(query):
    """Return each group as the store has it."""
    manager = get_group_manager()
    groups = {}
    async for group in manager.agroups():
        members = {one.id: [one.user_id, one.info] async for one in group}
        counts = await group.acount(), await group.auser_count()
        groups[group.name] = [members, *counts]
    return groups


VIEWS = {
    "/convergence/faults/": set_faults,
    "/convergence/truth/": tell_truth,
    "/convergence/signals/": tell_signals,
}
visitor = Visitor.as_asgi()
States.take_own = take_own_or_not
group_join.connect(note_join, sender=Manager)
group_leave.connect(note_leave, sender=Manager)


async def application(scope, receive, send):
    """Serve the visitors and the two views, and the demo for all else."""
    path = scope.get("path", "")
    if scope["type"] == "websocket":
        await visitor(scope, receive, send)
    elif scope["type"] == "http" and path in VIEWS:
        query = parse_qs(scope["query_string"].decode())
        body = json.dumps(await VIEWS[path](query)).encode()
        head = {"type": "http.response.start", "status": 200, "headers": []}
        await send(head)
        await send({"type": "http.response.body", "body": body})
    else:
        await demo(scope, receive, send)

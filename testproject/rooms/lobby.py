"""The lobby: every live room with its count, pushed to whoever looks.

A join or leave is signalled in one process of the cluster. That process sends a
note to a plain layer group, in which every process with a lobby open has one
channel; each of those reads the list once per note, however many look at it.
"""

import asyncio
import contextlib
import logging

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer

from channels_groups.consumers import AsyncGroupConsumerMixin
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import get_group_manager

logger = logging.getLogger(__name__)

#: The layer group of the notes. RoomManager rejects rooms called ``closed-...``,
#: so no room is ever in the layer group of this name.
NOTES = "closed-lobby"
#: At most ten notes, readings and pushes a second.
INTERVAL = 0.1
#: Seconds after which the list is read without a note: one may be lost, and a
#: process that died may have been the last one to tell.
PATIENCE = 2.0


class OnePerLoop:
    """An object that a running event loop has one of while it is needed."""

    @classmethod
    def of_this_loop(cls):
        """Return the running loop's one, made by the first who asks."""
        loop = asyncio.get_running_loop()
        if loop not in cls.by_loop:
            cls.by_loop[loop] = cls()
        return cls.by_loop[loop]

    def forget(self):
        """Let the next who asks have a new one."""
        self.by_loop.pop(asyncio.get_running_loop(), None)


class Notes(OnePerLoop):
    """The notes that this process sends."""

    by_loop = {}

    def __init__(self):
        self.task = None
        self.due = False

    def send_soon(self):
        """Send a note now, or after the interval if one has just been sent."""
        self.due = True
        if self.task is None:
            self.task = asyncio.create_task(self.run(), name="lobby notes")

    async def run(self):
        """Send notes while any is due, then end."""
        try:
            while self.due:
                self.due = False
                try:
                    await get_channel_layer().group_send(NOTES, {"type": "rooms"})
                except Exception as error:  # of the layer's own library
                    logger.debug("No note for the lobby: %r", error)
                await asyncio.sleep(INTERVAL)
        finally:
            self.forget()


class Board(OnePerLoop):
    """The list of rooms as this process last read it, while somebody looks."""

    by_loop = {}

    def __init__(self):
        self.rooms = None
        self.watchers = 0
        self.tasks = []
        self.noted = asyncio.Event()
        self.changed = asyncio.Condition()

    async def __aenter__(self):
        """Count one more watcher; with the first, start reading."""
        self.watchers += 1
        if self.watchers == 1:
            self.tasks = [
                asyncio.create_task(self.listen(), name="lobby listen"),
                asyncio.create_task(self.read(), name="lobby read"),
            ]
        return self

    async def __aexit__(self, *exc_info):
        """Count one less; with the last, stop reading."""
        self.watchers -= 1
        if not self.watchers:
            self.forget()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def newer_than(self, rooms):
        """Return the list as soon as it is another one than ``rooms``."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.rooms not in (None, rooms))
            return self.rooms

    async def read(self):
        """Read the list after every note that came since the last reading began."""
        while True:
            self.noted.clear()
            try:
                rooms = await get_group_manager().list_rooms()
            except StoreUnavailable as error:
                logger.debug("The lobby stays as it is: %s", error)
            else:
                async with self.changed:
                    self.rooms = [pick(room, "name", "count") for room in rooms]
                    self.changed.notify_all()
            await asyncio.sleep(INTERVAL)
            try:
                await asyncio.wait_for(self.noted.wait(), PATIENCE)
            except asyncio.TimeoutError:
                pass

    async def listen(self):
        """Take in the notes, and begin anew when the layer fails."""
        while True:
            try:
                await self.take_notes()
            except Exception as error:  # of the layer's own library
                logger.debug("The lobby hears no notes: %r", error)
                await asyncio.sleep(PATIENCE)

    async def take_notes(self):
        """Wake the reader with each note, until cancelled."""
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(NOTES, channel)
        try:
            while True:
                await layer.receive(channel)
                self.noted.set()
        finally:
            # Raised here, an error would take the place of the cancellation.
            with contextlib.suppress(Exception):
                await layer.group_discard(NOTES, channel)


class LobbyConsumer(AsyncGroupConsumerMixin, AsyncJsonWebsocketConsumer):
    """One look at the lobby.

    It is in no group, and so in no list; with the mixin it stays open while the
    channel layer is out of reach.
    """

    async def __call__(self, scope, receive, send):
        """Run, and stop pushing however it ends."""
        self.pusher = None
        try:
            async with Board.of_this_loop() as self.board:
                await super().__call__(scope, receive, send)
        finally:
            if self.pusher:
                self.pusher.cancel()
                await asyncio.gather(self.pusher, return_exceptions=True)

    async def connect(self):
        """Accept, and push from now on."""
        await self.accept()
        self.pusher = asyncio.create_task(self.push(), name="lobby push")

    async def receive(self, text_data=None, bytes_data=None):
        """Ignore the client: it has nothing to say here."""

    async def push(self):
        """Send the list, and again whenever it has changed."""
        rooms = None
        while True:
            rooms = await self.board.newer_than(rooms)
            await self.send_json({"type": "rooms", "rooms": rooms})


def pick(mapping, *keys):
    """Return some keys of a dict."""
    return {key: mapping[key] for key in keys}

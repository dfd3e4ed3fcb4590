"""Consumers that do what the test wants, and their clients."""

import asyncio
import inspect
from collections import deque

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.testing import WebsocketCommunicator

from channels_groups.consumers import AsyncGroupConsumerMixin, GroupConsumerMixin

TIMEOUT = 10


def cases(*names):
    """Run a test with these layers and consumers only."""
    return pytest.mark.parametrize("case", names, indirect=True)


in_memory = cases("memory-async", "memory-sync")
async_only = cases("memory-async", "core-async", "pubsub-async")
on_redis = cases("core-async", "pubsub-sync")


class Client(WebsocketCommunicator):
    """A client of one consumer, whose scope tells it what to do.

    room: what connect() enters; user_id, info: who it is.
    """

    def __init__(self, consumer_class, **scope):
        self.consumer = None
        self.consumer_class = consumer_class
        #: What its hooks were called with, and with what disconnect() found.
        self.changes = []
        self.joined = []
        self.left = []
        self.updated = []
        self.ended = []
        self._todo = deque()
        super().__init__(self._run, "/")
        self.scope.update(scope, client=self)

    async def _run(self, scope, receive, send):
        self.consumer = self.consumer_class()
        return await self.consumer(scope, receive, send)

    @property
    def id(self):
        return self.consumer.connection.id

    async def connect(self, timeout=TIMEOUT):
        return await super().connect(timeout)

    async def receive_output(self, timeout=TIMEOUT):
        return await super().receive_output(timeout)

    async def receive_from(self, timeout=TIMEOUT):
        return await super().receive_from(timeout)

    async def wait(self, timeout=TIMEOUT):
        await super().wait(timeout)

    async def disconnect(self, code=1000, timeout=TIMEOUT):
        await super().disconnect(code, timeout)

    async def do(self, function):
        """Call a function with the consumer, in its handler; return the result."""
        done = asyncio.get_running_loop().create_future()
        self._todo.append((function, done))
        await self.send_to(text_data="do")
        return await asyncio.wait_for(done, TIMEOUT)

    async def set_group(self, name):
        return await self.do(lambda consumer: consumer.set_group(name))

    async def join_group(self, name):
        return await self.do(lambda consumer: consumer.join_group(name))

    async def leave_group(self, name):
        return await self.do(lambda consumer: consumer.leave_group(name))

    def take_todo(self):
        """Return the function and where its result goes, in whichever thread."""
        function, done = self._todo.popleft()
        loop = done.get_loop()

        def answer(set_it, result):
            loop.call_soon_threadsafe(lambda: None if done.done() else set_it(result))

        return (
            function,
            lambda result: answer(done.set_result, result),
            lambda error: answer(done.set_exception, error),
        )

    async def frames(self, count):
        """Return the next so many frames."""
        return [await self.receive_from() for _ in range(count)]

    async def has_received_nothing(self):
        """Return whether nothing has come, after a round through the consumer."""
        await self.do(lambda consumer: None)
        return self.output_queue.empty()

    async def close_code(self):
        """Return the code and reason that it is closed with."""
        output = await self.receive_output()
        assert output["type"] == "websocket.close", output
        return output.get("code"), output.get("reason")

    async def end(self):
        """End it, in whatever state it is; its own errors are the test's matter."""
        if self._future is None:
            return
        try:
            if not self.future.done():
                self.input_queue.put_nowait(
                    {"type": "websocket.disconnect", "code": 1001}
                )
            await self.wait()
        except Exception:
            if not self.future.done():
                raise


class AsyncChat(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    async def connect(self):
        if self.scope["room"] is not None:
            await self.set_group(self.scope["room"])
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        function, succeed, fail = self.scope["client"].take_todo()
        try:
            result = function(self)
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            fail(error)
        else:
            succeed(result)

    async def disconnect(self, code):
        self.scope["client"].ended.append((code, self.group_name))

    def get_group_user_id(self):
        return self.scope.get("user_id")

    def get_group_info(self):
        return self.scope.get("info", {})

    async def chat_note(self, message):
        await self.send(text_data=f"note {message['text']}")


class SyncChat(GroupConsumerMixin, WebsocketConsumer):
    def connect(self):
        if self.scope["room"] is not None:
            self.set_group(self.scope["room"])
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        function, succeed, fail = self.scope["client"].take_todo()
        try:
            result = function(self)
        except Exception as error:
            fail(error)
        else:
            succeed(result)

    def disconnect(self, code):
        self.scope["client"].ended.append((code, self.group_name))

    def get_group_user_id(self):
        return self.scope.get("user_id")

    def get_group_info(self):
        return self.scope.get("info", {})

    def chat_note(self, message):
        self.send(text_data=f"note {message['text']}")


class AsyncToldChat(AsyncChat):
    async def group_changed(self, change):
        self.scope["client"].changes.append(change)
        await super().group_changed(change)

    async def group_join(self, group, connection):
        self.scope["client"].joined.append((group.name, connection))

    async def group_leave(self, group, connection):
        self.scope["client"].left.append((group.name, connection))

    async def group_update(self, group, connection):
        self.scope["client"].updated.append((group.name, connection))


class SyncToldChat(SyncChat):
    def group_changed(self, change):
        self.scope["client"].changes.append(change)
        super().group_changed(change)

    def group_join(self, group, connection):
        self.scope["client"].joined.append((group.name, connection))

    def group_leave(self, group, connection):
        self.scope["client"].left.append((group.name, connection))

    def group_update(self, group, connection):
        self.scope["client"].updated.append((group.name, connection))

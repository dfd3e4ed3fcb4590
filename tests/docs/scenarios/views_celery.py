import asyncio
import shlex

import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from chat import async_views, counts, moves, orders, tasks, views
from django.contrib.auth.models import User
from django.test import AsyncRequestFactory, RequestFactory
from eventually import aeventually

from channels_groups.consumers import AsyncGroupConsumerMixin
from channels_groups.manager import get_group


class Visitor(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    async def connect(self):
        await self.set_group(self.scope["url_route"]["kwargs"]["room"])
        await self.accept()

    def get_group_info(self):
        return {"name": "Ann"}


@pytest.fixture
async def worker(page, serve):
    """The page's worker, in a process of its own; it warns where root runs it."""
    _, _, code = page.take()
    command = [*shlex.split(code[2:]), "--concurrency", "1", "--loglevel", "INFO"]
    await serve(*command, ready=r"ready\.", PYTHONWARNINGS="default")


@pytest.mark.django_db(transaction=True)
async def test_page(connect, worker):
    client = await connect(Visitor, room="lobby")
    get = RequestFactory().get("/")
    response = await sync_to_async(views.room)(get, "lobby")
    assert b'"count": 1' in response.content and b'"name": "Ann"' in response.content
    answer = await async_views.room(AsyncRequestFactory().get("/"), "lobby")
    assert answer.content == response.content

    announced = await asyncio.to_thread(tasks.announce.delay, "lobby", "hello")
    assert (await client.receive_json_from(timeout=20))["text"] == "hello"
    assert await asyncio.to_thread(announced.get, timeout=20) == 1

    clerk = await connect(Visitor, room="orders")
    await sync_to_async(orders.publish)(User(username="anything that is saved"))
    assert (await clerk.receive_json_from(timeout=5))["type"] == "order"

    assert await sync_to_async(counts.count_or_none)("lobby") == 1
    await sync_to_async(moves.merge)("lobby", "hall")
    await aeventually(get_group("hall").acount, equals=1)
    assert await sync_to_async(counts.count_or_none)("lobby") == 0
    assert (
        await sync_to_async(views.close)(RequestFactory().post("/"), "hall")
    ).status_code == 200
    assert (await client.receive_output(timeout=5))["code"] == 4000

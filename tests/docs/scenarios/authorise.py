import pytest
from asgiref.sync import sync_to_async
from chat.consumers import RoomConsumer
from chat.membership import remove_member
from chat.models import Room
from chat.open import OpenRoomConsumer
from chat.talkative import TalkativeConsumer
from chat.tenants import TenantManager
from django.contrib.auth.models import AnonymousUser, User

from channels_groups.consumers import AsyncGroupConsumerMixin
from channels_groups.manager import get_group

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def ann():
    ann = await User.objects.acreate(username="ann")
    room = await Room.objects.acreate(slug="tea")
    await room.members.aadd(ann)
    return ann


async def test_members_only(connect, ann):
    client = await connect(RoomConsumer, user=ann, room="tea")
    assert client.accepted
    assert await get_group("tea").ausers() == {str(ann.pk)}
    assert not (await connect(RoomConsumer, user=ann, room="other")).accepted
    assert not (await connect(RoomConsumer, user=AnonymousUser(), room="tea")).accepted
    client = await connect(OpenRoomConsumer, user=AnonymousUser(), room="other")
    assert client.accepted


async def test_a_refusal_with_a_code(connect, ann):
    client = await connect(TalkativeConsumer, user=ann, room="other")
    closed = await client.receive_output(timeout=5)
    assert (closed["type"], closed["code"]) == ("websocket.close", 4003)


async def test_losing_the_right(connect, ann):
    client = await connect(RoomConsumer, user=ann, room="tea")
    room = await Room.objects.aget()

    await sync_to_async(remove_member)(room, ann)
    closed = await client.receive_output(timeout=5)
    assert (closed["type"], closed["code"]) == ("websocket.close", 4003)


async def test_tenants(connect):
    class Consumer(RoomConsumer):
        group_manager = TenantManager()

        async def __call__(self, scope, receive, send):
            return await super().__call__({**scope, "tenant": "acme"}, receive, send)

    await connect(Consumer, room="tea")
    assert issubclass(Consumer, AsyncGroupConsumerMixin)
    assert await get_group("acme:tea").acount() == 1

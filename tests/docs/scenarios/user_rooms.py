import pytest
from asgiref.sync import sync_to_async
from chat.consumers import NotificationConsumer
from chat.models import Profile
from chat.presence import is_online, log_out_everywhere, notify
from django.contrib.auth.models import AnonymousUser, User


@pytest.mark.django_db(transaction=True)
async def test_page(connect):
    assert not (await connect(NotificationConsumer, user=AnonymousUser())).accepted
    ann = await User.objects.acreate(username="ann")
    profile = await Profile.objects.acreate(user=ann)
    assert not await sync_to_async(is_online)(ann)
    clients = [await connect(NotificationConsumer, user=ann) for _ in range(2)]
    assert await sync_to_async(is_online)(ann)
    await profile.arefresh_from_db()
    assert profile.online
    await sync_to_async(notify)(ann, "hello")
    for client in clients:
        assert (await client.receive_json_from(timeout=5))["text"] == "hello"
    await sync_to_async(log_out_everywhere)(ann)
    for client in clients:
        assert (await client.receive_output(timeout=5))["code"] == 4001
        await client.wait(timeout=5)
    await profile.arefresh_from_db()
    assert not profile.online

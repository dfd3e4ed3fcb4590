import pytest
from asgiref.sync import sync_to_async
from chat.consumers import PresenceConsumer
from chat.presence import get_anonymous_count, get_users
from django.contrib.auth.models import AnonymousUser, User


@pytest.mark.django_db(transaction=True)
async def test_page(connect):
    ann = await User.objects.acreate(username="ann")
    bob = await User.objects.acreate(username="bob")
    client = await connect(PresenceConsumer, user=ann, room="tea")
    presence = {"type": "presence", "users": [str(ann.pk)]}
    assert await client.receive_json_from(timeout=5) == presence
    other = await connect(PresenceConsumer, user=bob, room="tea")
    both = {"type": "presence", "users": [str(ann.pk), str(bob.pk)]}
    assert await client.receive_json_from(timeout=5) == both
    await connect(PresenceConsumer, user=AnonymousUser(), room="tea")
    assert await sync_to_async(lambda: set(get_users("tea")))() == {ann, bob}
    assert await sync_to_async(get_anonymous_count)("tea") == 1
    await other.disconnect()
    while await client.receive_json_from(timeout=5) != presence:
        pass

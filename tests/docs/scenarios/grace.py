import pytest
from chat.consumers import ChatConsumer
from django.contrib.auth.models import AnonymousUser, User

from channels_groups.manager import get_group


@pytest.mark.django_db(transaction=True)
async def test_page(connect, group_events):
    ann = await User.objects.acreate(username="ann")
    bob = await User.objects.acreate(username="bob")
    watcher = await connect(ChatConsumer, user=bob, room="tea")
    page = await connect(ChatConsumer, user=ann, room="tea")
    assert (await watcher.receive_json_from(timeout=20))["type"] == "join"
    joined = len(group_events)

    await page.disconnect()
    assert await get_group("tea").acount() == 2
    page = await connect(ChatConsumer, user=ann, room="tea")
    assert await get_group("tea").acount() == 2
    assert len(group_events) == joined

    await page.send_json_to({"type": "leave"})
    assert (await watcher.receive_json_from(timeout=20))["type"] == "leave"
    assert group_events[-1].reason == "left"
    stranger = await connect(ChatConsumer, user=AnonymousUser(), room="tea")
    await stranger.disconnect()
    assert group_events[-1].reason == "disconnected"

    await watcher.disconnect()
    last = await group_events.await_for("leave", reason="expired", timeout=20)
    assert last.count == 0

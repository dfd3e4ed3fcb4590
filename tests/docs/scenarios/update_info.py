import pytest
from asgiref.sync import sync_to_async
from chat.consumers import ChatConsumer
from chat.moderation import mute
from django.contrib.auth.models import User

from channels_groups.manager import get_group


@pytest.mark.django_db(transaction=True)
async def test_page(connect, capsys):
    ann = await User.objects.acreate(username="ann")
    bob = await User.objects.acreate(username="bob")
    clients = [
        await connect(ChatConsumer, user=user, room="tea") for user in (ann, bob)
    ]
    await clients[0].send_json_to({"type": "typing", "typing": True})
    for client in clients:
        update = await client.receive_json_from(timeout=20)
        assert update["info"] == {"name": "ann", "typing": True}
    await sync_to_async(mute)("tea", ann)
    for client in clients:
        update = await client.receive_json_from(timeout=20)
        assert update["info"] == {"name": "ann", "typing": True, "muted": True}
    stored = await get_group("tea").aget(update["id"])
    assert stored.info == update["info"]
    assert "tea: {'name': 'ann', 'typing': True}" in capsys.readouterr().out

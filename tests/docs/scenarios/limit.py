import pytest
from asgiref.sync import sync_to_async
from chat.consumers import TableConsumer
from chat.models import Table
from django.conf import settings

from channels_groups.manager import get_group, get_group_manager


@pytest.mark.django_db(transaction=True)
async def test_page(connect):
    await Table.objects.acreate(name="chess", seats=2)
    seated = []
    for _ in range(3):
        client = await connect(TableConsumer, table="chess")
        seated.append((await client.receive_json_from(timeout=5))["seated"])
    assert seated == [True, True, False]
    assert await get_group("chess (spectators)").acount() == 1
    assert settings.CHANNELS_GROUPS["default"]["MAX_MEMBERS"] == 100

    limit = sync_to_async(get_group_manager().max_members)
    assert await limit(get_group("other")) == 100

from asgi import Consumer
from asgiref.sync import sync_to_async
from chat.views import metrics
from django.test import RequestFactory


async def test_page(connect):
    await connect(Consumer, "/tea")
    response = await sync_to_async(metrics)(RequestFactory().get("/metrics"))
    text = response.content.decode()
    assert 'channels_groups_groups{alias="default"} 1.0' in text
    assert 'channels_groups_joins_total{alias="default"} 1.0' in text

import json

from channels.layers import get_channel_layer
from chat.after import GroupConsumer
from chat.before import PlainConsumer

from channels_groups.manager import get_group


async def test_both_do_the_same(connect):
    for consumer in (PlainConsumer, GroupConsumer):
        clients = [await connect(consumer, room="tea") for _ in range(2)]
        await clients[0].send_to('{"text": "hello"}')
        for client in clients:
            assert json.loads(await client.receive_from(timeout=5)) == {"text": "hello"}
        for client in clients:
            await client.disconnect()


async def test_old_code_reaches_the_members_where_they_have_the_handler(connect):
    class Halfway(GroupConsumer):
        async def chat_message(self, event):
            await self.send(json.dumps({"text": event["text"]}))

    client = await connect(Halfway, room="tea")
    event = {"type": "chat.message", "text": "hello"}
    await get_channel_layer().group_send("chat_tea", event)
    assert json.loads(await client.receive_from(timeout=5)) == {"text": "hello"}
    await get_group("chat_tea").asend_event(event)
    assert json.loads(await client.receive_from(timeout=5)) == {"text": "hello"}

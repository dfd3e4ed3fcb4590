from chat.consumers import ChatConsumer


async def test_page(connect):
    ann, bob = await connect(ChatConsumer), await connect(ChatConsumer)
    await ann.send_json_to({"type": "say", "text": "hello"})
    assert await bob.receive_json_from(timeout=5) == {"type": "said", "text": "hello"}
    await ann.send_json_to({"type": "disconnect"})
    await ann.send_json_to({"type": "move", "room": "hall"})
    assert await ann.receive_json_from(timeout=5) == {"type": "moved", "room": "hall"}

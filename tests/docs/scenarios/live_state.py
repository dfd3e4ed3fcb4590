import asyncio
import json

import pytest
from chat.consumers import RoomConsumer
from django.contrib.auth.models import AnonymousUser, User
from websockets.asyncio.client import connect as open_websocket


async def test_the_page_in_a_browser(serve, open_browser):
    port = await serve("daphne", "-p", "0", "rooms_asgi:application")
    browser = await asyncio.to_thread(open_browser)

    def shows(css, text):
        browser.eventually(lambda: text in browser.find(css).text, f"{text} in {css}")

    def enter():
        browser.get(f"http://127.0.0.1:{port}/show/tea%20room/")
        shows("#members", "guest")

    await asyncio.to_thread(enter)
    url = f"ws://127.0.0.1:{port}/ws/tea%20room/"
    async with open_websocket(url, proxy=None) as other:
        await asyncio.to_thread(shows, "#members", "guest, guest")
        assert browser.find("#count").text == "2"
        await other.send('{"type": "say", "text": "hello"}')
        await asyncio.to_thread(shows, "#log", "hello")
    await asyncio.to_thread(shows, "#log", "guest left.")
    assert browser.find("#count").text == "1"
    assert browser.console_errors() == []


@pytest.mark.django_db(transaction=True)
async def test_the_messages(connect):
    ann = await User.objects.acreate(username="ann")
    client = await connect(RoomConsumer, user=ann, room="tea")
    state = await client.receive_json_from(timeout=20)
    assert state.keys() == {
        *("type", "group", "revision", "id", "count", "user_count", "members")
    }
    assert state["id"] == state["members"][0]["id"]
    assert [member["name"] for member in state["members"]] == ["ann"]
    other = await connect(RoomConsumer, user=AnonymousUser(), room="tea")
    change = await client.receive_json_from(timeout=20)
    assert change.keys() == {
        *("type", "group", "revision", "previous", "joined", "left", "updated"),
        *("count", "user_count"),
    }
    assert change["previous"] == state["revision"]
    assert [member["name"] for member in change["joined"]] == ["guest"]

    await client.send_json_to({"type": "group.ping"})
    assert await client.receive_json_from(timeout=20) == {"type": "group.pong"}
    await client.send_json_to({"type": "group.state", "group": "tea"})
    again = await client.receive_json_from(timeout=20)
    assert (again["type"], again["count"]) == ("group.state", 2)
    await other.disconnect()
    left = json.loads(await client.receive_from(timeout=20))["left"]
    assert left == [change["joined"][0]["id"]]

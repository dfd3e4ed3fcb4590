import pytest
from asgiref.testing import ApplicationCommunicator

from channels_groups.manager import get_group


@pytest.mark.django_db(transaction=True)
async def test_page(page):
    from asgi import application

    scope = {"type": "http", "method": "GET", "path": "/events/lobby/", "headers": []}
    stream = ApplicationCommunicator(application, scope)
    await stream.send_input({"type": "http.request", "body": b""})
    start = await stream.receive_output(timeout=5)
    assert (b"Content-Type", b"text/event-stream") in start["headers"]
    assert (await stream.receive_output(5))["body"] == b"retry: 1000\n\n"
    assert await get_group("lobby").acount() == 1
    await page.run()
    event = await stream.receive_output(timeout=5)
    assert event["body"] == b"data: Dinner is ready.\n\n"
    await stream.send_input({"type": "http.disconnect"})
    await stream.wait(5)
    assert not await get_group("lobby").aexists()

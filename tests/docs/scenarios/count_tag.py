import asyncio

from websockets.asyncio.client import connect


async def test_page(serve, open_browser):
    port = await serve("daphne", "-p", "0", "asgi:application")
    browser = await asyncio.to_thread(open_browser)

    def shows(text):
        browser.eventually(lambda: browser.texts("p") == [text], text)

    async def enter(room):
        url = f"ws://127.0.0.1:{port}/ws/{room}/"
        return await connect(url, origin=f"http://127.0.0.1:{port}", proxy=None)

    ann = await enter("tea")
    page = f"http://127.0.0.1:{port}/show/tea/"
    await asyncio.to_thread(browser.get, page)
    await asyncio.to_thread(shows, "0 people are in the lobby, 1 in tea.")
    bob, cid = await enter("tea"), await enter("lobby")
    await asyncio.to_thread(shows, "1 people are in the lobby, 2 in tea.")
    for client in (ann, bob, cid):
        await client.close()
    await asyncio.to_thread(shows, "0 people are in the lobby, 0 in tea.")

    staff = [await enter("staff-room")]
    page = f"http://127.0.0.1:{port}/show/staff-room/"
    await asyncio.to_thread(browser.get, page)
    staff += [await enter("staff-room"), await enter("lobby")]
    await asyncio.to_thread(shows, "1 people are in the lobby, 1 in staff-room.")
    for client in staff:
        await client.close()
    assert browser.console_errors() == []

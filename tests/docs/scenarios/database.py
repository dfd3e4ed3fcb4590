import asyncio

from websockets.asyncio.client import connect

COUNT = "from channels_groups.manager import get_group; print(get_group('tea').count())"


async def test_page(page, serve):
    await page.run_all()
    port = await serve("daphne", "-p", "0", "asgi:application")
    url = f"ws://127.0.0.1:{port}/tea"
    async with connect(url, proxy=None) as ann, connect(url, proxy=None) as bob:
        await asyncio.wait_for(ann.recv(), 20)
        assert await asyncio.wait_for(bob.recv(), 20) == "2"
        await bob.send("hello")
        assert await asyncio.wait_for(ann.recv(), 20) == "hello"
        shell = await asyncio.create_subprocess_exec(
            *("python", "manage.py", "shell", "-v", "0", "-c", COUNT),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await shell.communicate()
        assert printed == b"2\n"

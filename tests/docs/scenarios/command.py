import asyncio

from eventually import aeventually
from watching import check_watch, count_connections


async def test_page(page, enter):
    async with (
        enter("kitchen", "ann") as ann,
        enter("kitchen", "bob"),
        enter("lobby", "ann") as lobby,
    ):
        for _ in range(3):
            await page.run()
        await check_watch(page, enter)
        await page.run()
        while await asyncio.wait_for(ann.recv(), 20) != "Dinner is ready.":
            pass
        await page.run()
        await lobby.wait_closed()
        assert lobby.close_code == 4000
        await aeventually(count_connections, equals=[2])
        await page.run_all()

import asyncio

from eventually import aeventually
from watching import check_watch, count_connections

from channels_groups.manager import get_group


async def test_page(page, enter):
    async with (
        enter("kitchen", "ann") as ann,
        enter("kitchen", "bob"),
        enter("lobby", "ann") as lobby,
    ):
        await page.run()
        await page.run()
        await check_watch(page, enter)
        await aeventually(count_connections, equals=[3])
        await page.run()
        await page.run()
        while await asyncio.wait_for(ann.recv(), 20) != "Dinner is ready.":
            pass
        await lobby.wait_closed()
        assert lobby.close_code == 4000
        await aeventually(get_group("lobby").acount, equals=0)
        await page.run()

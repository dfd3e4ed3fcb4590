"""The scenario of a page whose steps need nothing beside them."""


async def test_page(page):
    await page.run_all()

from chat.consumers import Chat

from channels_groups.manager import get_group


async def test_page(connect, page, capsys):
    ann = await connect(Chat, room="Lobby")
    assert await ann.receive_from(timeout=20) == "There are 1 of you."
    bob = await connect(Chat, room="Lobby")
    assert await bob.receive_from(timeout=20) == "There are 2 of you."
    assert await ann.receive_from(timeout=20) == "Somebody came."
    await bob.send_to("hello")
    for client in (ann, bob):
        assert await client.receive_from(timeout=20) == "hello"
    await bob.disconnect()
    assert await ann.receive_from(timeout=20) == "Somebody left."

    assert await page.run() == ["Lobby"]
    assert await ann.receive_from(timeout=20) == "Hello"
    assert (await ann.receive_output(timeout=20))["code"] == 4000
    await ann.wait(timeout=20)
    assert not await get_group("Lobby").aexists()

    await page.run()
    cid = await connect(Chat, room="東京")
    await cid.disconnect()
    assert "None left 東京: disconnected; 0 remain" in capsys.readouterr().out

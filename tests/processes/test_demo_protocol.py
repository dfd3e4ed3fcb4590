"""The demo's wire protocol, on real servers of either kind."""

import asyncio
import json

import pytest
import websockets
from websockets.exceptions import InvalidStatus

from tests.helpers.client import Client, connect

NAMES = [
    "a/b",
    "/",
    "a b",
    "数学の部屋",
    "😀",
    "50%",
    "?#&=+",
    "line\nend",
    "__proto__",
]


async def test_two_meet(nodes, room):
    async with connect(nodes[0], room, "first") as first:
        assert first.received == [
            {
                "type": "welcome",
                "id": first.id,
                "room": room,
                "process": nodes[0].name,
                "count": 1,
                "members": [
                    {"id": first.id, "name": "first", "process": nodes[0].name}
                ],
            }
        ]
        async with connect(nodes[1], room, "second") as second:
            assert set(second.members) == {first.id, second.id}
            assert second.count == 2
            who = {"id": second.id, "name": "second"}
            assert await first.receive("join") == {"type": "join", **who, "count": 2}

            await second.say("hello")
            for client in (first, second):
                said = await client.receive("said")
                assert said == {"type": "said", **who, "text": "hello"}

            await second.whisper(first.id, "psst")
            whispered = await first.receive("whispered")
            assert whispered == {"type": "whispered", **who, "text": "psst"}
        assert await first.receive("leave") == {"type": "leave", **who, "count": 1}
        assert second.all_of("whispered") == []


async def test_who(nodes, room):
    async with (
        connect(nodes[0], room, "same") as first,
        connect(nodes[1], room, "same") as second,
        connect(nodes[1], room, "other") as third,
    ):
        answer = await first.who()
        members = {member["id"]: member for member in answer.pop("members")}
        assert answer == {"type": "who", "room": room, "count": 3, "users": 2}
        assert set(members) == {first.id, second.id, third.id}
        assert members[third.id] == {
            "id": third.id,
            "name": "other",
            "process": nodes[1].name,
        }


async def test_move(nodes, room):
    async with (
        connect(nodes[0], room, "first") as first,
        connect(nodes[1], room, "second") as second,
    ):
        await second.move(f"{room}, next door")
        assert second.count == 1
        assert (await first.receive("leave"))["id"] == second.id
        await second.move(room)
        assert set(second.members) == {first.id, second.id}
        await second.move(None)
        assert (second.members, second.count) == ({}, 0)
        for message in (
            {"type": "say", "text": "anybody?"},
            {"type": "whisper", "to": first.id, "text": "you?"},
            {"type": "kick", "id": first.id},
        ):
            await second.send(**message)
            await second.receive("error", error="no-room")
        assert await second.who() == {
            "type": "who",
            "room": None,
            "count": 0,
            "users": 0,
            "members": [],
        }
        assert second.all_of("leave") == [], "it knows that it left"


async def test_kick(nodes, room):
    async with (
        connect(nodes[0], room, "first") as first,
        connect(nodes[1], room, "second") as second,
    ):
        await first.kick(second.id)
        code, _ = await second.wait_closed()
        assert code == 4000
        assert (await first.receive("leave"))["count"] == 1
        for message in (
            {"type": "kick", "id": second.id},
            {"type": "whisper", "to": second.id, "text": "still there?"},
        ):
            await first.send(**message)
            await first.receive("error", error="gone")


async def test_one_who_vanishes_in_the_middle_of_a_talk(nodes, room):
    async with connect(nodes[0], room, "first") as first:
        for node in nodes:
            second = await connect(node, room, "second").open()
            for _ in range(50):
                await second.send(type="nonsense")
                await second.send(type="who")
            await second.vanish()
            await first.receive("leave", id=second.id, count=1)


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_is_a_room(nodes, name):
    async with (
        connect(nodes[0], name, "__proto__") as first,
        connect(nodes[1], f"not {name}", "second") as second,
    ):
        assert first.room == name
        assert first.members[first.id]["name"] == "__proto__"
        await second.move(name)
        assert (await first.receive("join"))["id"] == second.id
        answer = await asyncio.to_thread(nodes[1].room, name)
        assert (answer["name"], answer["count"]) == (name, 2)


@pytest.mark.parametrize("name", ["closed-door", "x" * 1001])
async def test_a_rejected_room(nodes, room, name):
    with pytest.raises(InvalidStatus) as refused:
        await connect(nodes[0], name, "first").open()
    assert refused.value.response.status_code == 403
    async with connect(nodes[0], room, "first") as first:
        await first.send(type="move", room=name)
        error = "rejected" if name == "closed-door" else "invalid"
        await first.receive("error", error=error)
        assert (await first.who())["room"] == room


async def test_a_full_room(nodes, room):
    name = f"small-{room}"
    clients = [await connect(nodes[i % 2], name, f"{i}").open() for i in range(3)]
    async with connect(nodes[0], room, "late") as late:
        with pytest.raises(InvalidStatus):
            await connect(nodes[1], name, "later").open()
        await late.send(type="move", room=name)
        await late.receive("error", error="full")
        assert (await late.who())["room"] == room
        await clients[0].close()
        await clients[1].receive("leave")
        await late.move(name)
        assert late.count == 3
    for client in clients:
        await client.close()


@pytest.mark.parametrize(
    "text, error",
    [
        ("{", "malformed"),
        ("", "malformed"),
        ("[1]", "malformed"),
        ("null", "malformed"),
        ("[" * 100_000, "malformed"),
        ("9" * 5000, "malformed"),
        (b'{"type": "who"}', "malformed"),
        ("{}", "unknown"),
        ('{"type": "nonsense"}', "unknown"),
        ('{"type": "__proto__"}', "unknown"),
        ('{"type": ["say"]}', "unknown"),
        ('{"type": "say"}', "invalid"),
        ('{"type": "say", "text": 1}', "invalid"),
        ('{"type": "say", "text": " "}', "invalid"),
        ('{"type": "whisper", "text": "to nobody"}', "invalid"),
        ('{"type": "whisper", "to": {}, "text": "x"}', "invalid"),
        ('{"type": "kick", "id": null}', "invalid"),
        ('{"type": "move"}', "invalid"),
        ('{"type": "move", "room": 7}', "invalid"),
        ('{"type": "move", "room": ""}', "invalid"),
        ('{"type": "move", "room": "\\ud800"}', "invalid"),
        ('{"type": "kick", "id": "\\ud800"}', "gone"),
        ('{"type": "whisper", "to": "\\ud800", "text": "x"}', "gone"),
        (json.dumps({"type": "say", "text": "x" * 1_000_000}), "too-long"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_it_cannot_use(nodes, room, text, error):
    async with connect(nodes[0], room, "first") as first:
        await first.send_text(text)
        answer = await first.receive("error")
        assert answer["error"] == error
        assert answer["detail"]
        await first.say("still here")
        await first.receive("said", text="still here")


async def test_words_that_are_not_utf_8_text(nodes, room):
    async with connect(nodes[0], room, "first") as first:
        await first.send_text('{"type": "say", "text": "half a \\ud83d pair"}')
        assert (await first.receive("said"))["text"] == "half a \ud83d pair"


@pytest.mark.parametrize("path", ["/", "/ws/", "/ws/rooms/", "/ws/rooms//"])
async def test_other_paths_are_refused(nodes, path):
    for node in nodes:
        with pytest.raises(InvalidStatus) as refused:
            await Client(f"ws://127.0.0.1:{node.port}{path}").open()
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("origin, opens", [("localhost:1", True), ("a.test", False)])
async def test_pages_of_other_sites_are_refused(nodes, room, origin, opens):
    url = nodes[0].ws_url(room, "first")
    opening = websockets.connect(url, origin=f"http://{origin}", proxy=None)
    if opens:
        async with opening:
            return
    with pytest.raises(InvalidStatus):
        await opening

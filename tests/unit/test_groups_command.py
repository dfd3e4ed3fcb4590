"""``manage.py groups`` in one process: what it prints, refuses and does."""

import io
import json
import sys

import pytest
from asgiref.sync import sync_to_async
from django.core.management import BaseCommand, CommandError, call_command

from channels_groups import listing
from channels_groups.exceptions import StoreUnavailable
from channels_groups.management.actions import ACTIONS, show, watch
from channels_groups.management.commands import groups as command
from channels_groups.management.console import Console
from channels_groups.manager import get_group, get_group_manager
from channels_groups.stores.base import StoreRebuilding, Summary
from channels_groups.testing import isolated_groups
from channels_groups.watch import Event

from ..consumers.chats import AsyncChat, Client
from ..stores.lab import Lab, member


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
async def connect():
    clients = []

    async def connect(room, **scope):
        clients.append(Client(AsyncChat, room=room, **scope))
        await clients[-1].connect()
        return clients[-1]

    async with isolated_groups():
        yield connect
        for client in clients:
            await client.end()


@pytest.fixture
async def house(connect):
    """Two rooms with three connections of two users."""
    return [
        await connect("Lobby", user_id="ann", info={"name": "Ann"}),
        await connect("Lobby", user_id="ann"),
        await connect("Lobby\n\x1b[1m", user_id=None),
    ]


async def groups(*words, out=None, err=None):
    """Run the command; return what it wrote to stdout."""
    out, err = out or io.StringIO(), err or io.StringIO()
    await sync_to_async(call_command)("groups", *words, stdout=out, stderr=err)
    return out.getvalue()


async def test_list(house):
    assert await groups("list") == (
        "Group           Members  Users\n"
        "Lobby                 2      1\n"
        "Lobby\\n\\x1b[1m        1      0\n"
        "\n2 groups; 3 memberships.\n"
    )
    assert (await groups("list", "--limit", "1")).endswith(
        "\n1 of 2 groups; 3 memberships. --limit shows more of them.\n"
    )
    only = await groups("list", "--prefix", "Lobby\n")
    assert only.splitlines()[1:] == [
        "Lobby\\n\\x1b[1m        1      0",
        "",
        "1 group with the prefix 'Lobby\\n'.",
    ]
    cut = await groups("list", "--prefix", "Lob", "--limit", "1")
    assert cut.splitlines()[1:] == [
        "Lobby        2      1",
        "",
        "1 of 2 groups with the prefix 'Lob'. --limit shows more of them.",
    ]
    assert await groups("list", "--prefix", "x") == (
        "There is no group whose name begins with 'x'.\n"
    )


async def test_list_as_json(house):
    assert json.loads(await groups("list", "--json")) == [
        {"name": "Lobby", "members": 2, "users": 1},
        {"name": "Lobby\n\x1b[1m", "members": 1, "users": 0},
    ]
    assert len(json.loads(await groups("list", "--json", "--limit", "1"))) == 1
    assert json.loads(await groups("list", "--json", "--prefix", "x")) == []


async def test_list_asks_for_many_groups_at_once(connect, monkeypatch):
    monkeypatch.setattr(listing, "SIZE", 4)
    client = await connect(None)
    for number in range(9):
        await client.do(lambda consumer: consumer.join_group(f"room {number}"))
    store, asked = get_group_manager().store, []
    summaries = store.summaries

    async def summarize(shard, names):
        asked.append(len(names))
        return await summaries(shard, names)

    monkeypatch.setattr(store, "summaries", summarize)
    listed = json.loads(await groups("list", "--json"))
    assert [one["name"] for one in listed] == [f"room {n}" for n in range(9)]
    assert asked == [4, 4, 1]


async def test_a_group_that_ends_meanwhile_is_not_listed(house, monkeypatch):
    store = get_group_manager().store
    summaries = store.summaries

    async def summarize(shard, names):
        return [
            Summary(0, 0, 0) if name == "Lobby" else one
            for name, one in zip(names, await summaries(shard, names))
        ]

    monkeypatch.setattr(store, "summaries", summarize)
    (left,) = json.loads(await groups("list", "--json"))
    assert left["name"] != "Lobby"


@pytest.mark.parametrize(
    "words, shown",
    [
        (["list", "--json"], ["2 groups read …", "1 of 2 groups …"]),
        (["list", "--prefix", "Lobby"], ["2 groups read …", "1 of 2 groups …"]),
        (["show", "Lobby", "--json"], ["1 of 2 members …"]),
        (["verify"], ["2 entries compared …"]),
    ],
)
async def test_progress_is_shown_on_a_terminal_only(house, monkeypatch, words, shown):
    monkeypatch.setattr(listing, "SIZE", 1)
    monkeypatch.setattr(show, "PAGE", 1)
    err = io.StringIO()
    written = await groups(*words, err=err)
    assert "…" not in err.getvalue()
    err = Terminal()
    assert await groups(*words, err=err) == written
    # Each line replaces the one before; nothing of the last is left.
    lines = err.getvalue().split("\r\033[K")
    assert lines[-1] == ""
    assert [line for line in shown if line not in lines] == []


async def test_progress_makes_room_for_what_is_written(house, monkeypatch):
    monkeypatch.setattr(listing, "SIZE", 1)
    terminal = Terminal()
    await groups("list", "--json", out=terminal, err=terminal)
    _, written = terminal.getvalue().split("2 groups read …\r\033[K")
    assert len(json.loads(written)) == 2


async def test_progress_fits_the_terminal(house, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    err = Terminal()
    await groups("list", "--json", err=err)
    assert max(map(len, err.getvalue().split("\r\033[K")[1:])) == 9


async def test_list_of_nothing(connect):
    assert await groups("list") == "There is no group.\n"
    assert await groups("processes") == "No process has a connection.\n"
    assert json.loads(await groups("processes", "--json")) == []


async def test_what_is_printed_fits_the_terminal(house, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    lines = (await groups("show", "Lobby", out=Terminal())).splitlines()
    assert max(map(len, lines)) <= 30
    assert "ann" in lines[3]


@pytest.mark.parametrize(
    "width, line",
    [
        (80, "join           1  a room of a long name  bob@example.org  UIZWIcqv5HRT"),
        (66, "join           1  a room of …  bob@exampl…  UIZWIcqv5HRT"),
        (50, "join           1  a room of…  bob@examp…"),
        (40, "join           1  a roo…  bob…"),
    ],
)
def test_an_event_fits_the_terminal(monkeypatch, width, line):
    """And tells who it was, however long the group's name is."""
    monkeypatch.setenv("COLUMNS", str(width))
    about = {"id": "UIZWIcqv5HRT", "user_id": "bob@example.org", "count": 1}
    event = Event("join", "a room of a long name", 1, 1.0, **about)
    out = Terminal()
    console = Console(BaseCommand(stdout=out))
    console.write_event(watch.COLUMNS, watch._cells(event), None)
    (written,) = out.getvalue().splitlines()
    assert len(written) <= width
    assert written.partition("  ")[2] == line


async def test_show(house):
    shown = await groups("show", "Lobby", "--limit", "1")
    assert shown.startswith("Lobby: 2 members, 1 user.\n")
    assert '{"name": "Ann"}' in await groups("show", "Lobby")
    assert shown.endswith("\n1 more; --limit shows more of them.\n")
    (one,) = [c for c in house if c.consumer.connection.info]
    about = json.loads(await groups("show", "Lobby", "--json"))
    assert (about["name"], about["members"], about["users"]) == ("Lobby", 2, 1)
    found = {each["id"]: each for each in about["connections"]}
    connection = one.consumer.connection
    state = (await get_group_manager().store.nodes())[0]
    assert found[connection.id] == {
        "id": connection.id,
        "user_id": "ann",
        "info": {"name": "Ann"},
        "joined_at": connection.joined_at.isoformat(),
        "process": state.process.rpartition(":")[0],
        "channel_name": connection.channel_name,
    }


async def test_show_writes_json_as_it_reads(house, monkeypatch):
    """A group may have more members than this process has memory for."""
    out, seen = io.StringIO(), []
    iterate_members = listing.iterate_members

    async def iterate(*args):
        async for one in iterate_members(*args):
            seen.append(out.getvalue().count('"id": '))
            yield one

    monkeypatch.setattr(listing, "iterate_members", iterate)
    shown = await groups("show", "Lobby", "--json", out=out)
    assert seen == [0, 1]
    assert shown.startswith('{\n  "name": "Lobby",\n  "members": 2,\n')
    assert shown.endswith("}\n  ]\n}\n")


async def test_send(house):
    assert await groups("send", "Lobby", "hello") == "Sent to 2 connections.\n"
    assert [await one.receive_from() for one in house[:2]] == ["hello", "hello"]
    assert await house[2].receive_nothing()


async def test_close_a_group(house):
    words = ["--code", "4001", "--reason", "late", "--no-input"]
    closed = await groups("close", "Lobby", *words)
    assert closed == "Asked 2 connections of Lobby to close.\n"
    assert [await one.close_code() for one in house[:2]] == [(4001, "late")] * 2
    assert await house[2].receive_nothing()


async def test_close_all(house, connect):
    await connect(None)
    closed = await groups("close", "--all", "--no-input")
    assert closed.startswith("Asked all ")
    assert closed.endswith(" of 1 process to close.\n")
    assert [await one.close_code() for one in house] == [(None, None)] * 3


async def test_close_all_reaches_the_others_where_one_is_full(monkeypatch):
    full = {
        "BACKEND": "channels.layers.InMemoryChannelLayer",
        "CONFIG": {"capacity": 1},
    }
    async with isolated_groups(channel_layers={"default": full}):
        manager = get_group_manager()
        node = await Lab(manager.store).node()
        await node.join("Lobby", member("a"))
        layer = manager.channel_layer
        channels = [await layer.new_channel() for _ in range(3)]
        await layer.send(channels[0], {"type": "something.else"})

        async def list_channels():
            return channels

        monkeypatch.setattr(manager.store, "channels", list_channels)
        with pytest.raises(CommandError, match="Too much waits"):
            await groups("close", "--all", "--no-input")
        got = [(await layer.receive(channel))["type"] for channel in channels]
        assert got == ["something.else", "groups.close_all", "groups.close_all"]


async def test_processes(house):
    (one,) = json.loads(await groups("processes", "--json"))
    assert set(one) == {"process", "connections", "memberships", "lease"}
    assert one["memberships"] == 3 and 0 < one["lease"] <= 10
    titles, line = (await groups("processes")).splitlines()
    assert titles.split() == ["Process", "Connections", "Memberships", "Lease"]
    assert line.split()[0] == one["process"]


async def test_verify(house):
    assert await groups("verify") == "2 entries compared, all agree.\n"
    get_group_manager().store._groups["Lobby"].count = 7
    with pytest.raises(CommandError, match=r"^1 disagreement left. --repair"):
        await groups("verify")
    out = io.StringIO()
    with pytest.raises(CommandError):
        await groups("verify", "--json", out=out)
    said = json.loads(out.getvalue())
    assert (said["checked"], said["remaining"]) == (2, 1)
    assert said["disagreements"][0]["group"] == "Lobby"
    repaired = await groups("verify", "--repair", "--no-input")
    assert "group 'Lobby': It counts 7 members and has 2." in repaired
    assert repaired.endswith("All of it is mended.\n")
    assert await groups("verify") == "2 entries compared, all agree.\n"


async def test_verify_waits_while_the_store_is_written_back(house, monkeypatch):
    store, calls = get_group_manager().store, []
    verify = store.verify

    async def verify_later(cursor, mend):
        calls.append(cursor)
        if len(calls) == 1:
            raise StoreRebuilding
        return await verify(cursor, mend)

    monkeypatch.setattr(store, "verify", verify_later)
    err = Terminal()
    assert "all agree" in await groups("verify", err=err)
    assert len(calls) == 2
    assert "waiting" in err.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        ["close", "Lobby"],
        ["close", "--all"],
        ["verify", "--repair"],
    ],
)
async def test_nothing_is_closed_or_changed_unasked(house, monkeypatch, words):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(CommandError, match="--no-input"):
        await groups(*words, err=Terminal())
    monkeypatch.setattr(sys, "stdin", Terminal())
    error = io.StringIO()  # A file, in which nobody would see the question.
    with pytest.raises(CommandError, match="--no-input"):
        await groups(*words, err=error)
    assert "[y/N]" not in error.getvalue()
    for reply in ([""], []):  # And Ctrl-D.
        error = Terminal()
        monkeypatch.setattr("builtins.input", lambda: reply.pop() if reply else end())
        with pytest.raises(CommandError, match="Nothing was done"):
            await groups(*words, err=error)
        assert error.getvalue().endswith("? [y/N] ")
    assert await get_group("Lobby").acount() == 2
    monkeypatch.setattr("builtins.input", lambda: "y")
    await groups(*words, err=Terminal())


def end():
    raise EOFError


@pytest.mark.parametrize(
    "words, message",
    [
        (["show", "nobody"], "There is no group 'nobody'"),
        (["send", "nobody", "x"], "There is no group 'nobody'"),
        (["close", "nobody", "--no-input"], "There is no group 'nobody'"),
        (["show", "x" * 1001], "at most 1,000 characters"),
        (["close", "Lobby", "--code", "12", "--no-input"], "A close code is 1000 or"),
        (["close"], "Give either"),
        (["close", "Lobby", "--all"], "Give either"),
        (["list", "--alias", "nowhere"], "CHANNEL_LAYERS has no 'nowhere'"),
        (["list", "--limit", "0"], "'0' is no number that is at least 1"),
        (["list", "--limit", "x"], "'x' is no number that is at least 1"),
        (["dance"], "invalid choice"),
        ([], "arguments are required"),
    ],
)
async def test_what_is_wrong_is_said(house, words, message):
    with pytest.raises(CommandError, match=message):
        await groups(*words)


async def test_a_store_that_is_away_is_said(house, monkeypatch):
    async def fail(*args):
        raise StoreUnavailable("The store did not answer.")

    monkeypatch.setattr(get_group_manager().store, "ranking", fail)
    with pytest.raises(CommandError, match="The store did not answer."):
        await groups("list")


async def test_ctrl_c_is_no_traceback(house, monkeypatch):
    def interrupt(action, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ACTIONS["list"], "act", interrupt)
    with pytest.raises(CommandError, match="Interrupted.") as error:
        await groups("list")
    assert error.value.returncode == 130


async def test_in_memory_it_says_what_it_sees(connect):
    err = io.StringIO()
    await groups("list", err=err)
    assert "in memory: this command sees only" in err.getvalue()


async def test_with_a_shared_store_it_says_what_it_reaches(connect, monkeypatch):
    monkeypatch.setattr(command, "MemoryStore", type("OtherStore", (), {}))
    err = io.StringIO()
    assert await groups("list", err=err) == "There is no group.\n"
    assert "in memory: this command reaches only" in err.getvalue()

"""The database store alone: what its contract does not tell."""

import asyncio
import io
import threading
from functools import partial

import pytest
from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer
from django.core.management import call_command
from django.db import DatabaseError, connections

from channels_groups.database import models, verification
from channels_groups.database.worker import Worker
from channels_groups.exceptions import StoreUnavailable
from channels_groups.stores import make_store
from channels_groups.stores.base import Holdings, Join

from ..helpers.eventually import aeventually
from .conftest import DATABASE_KINDS
from .lab import MODELS, member
from .test_verify import check_mended, verify_all

ANN, BOB, CAT = (member(id, user=f"user-{id}") for id in "abc")

every_database = pytest.mark.parametrize("kind", DATABASE_KINDS, indirect=True)
on_servers = pytest.mark.parametrize(
    "kind", ["database-postgresql", "database-mysql"], indirect=True
)
on_sqlite = pytest.mark.parametrize("kind", ["database-sqlite"], indirect=True)


def test_migrations_are_complete(django_db_blocker):
    with django_db_blocker.unblock():
        call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())


@pytest.mark.parametrize("kind", ["database-sqlite-sealed"], indirect=True)
async def test_nothing_can_be_read_where_the_layer_encrypts(lab):
    one, two = await lab.node(), await lab.node()
    secret = member("a", user="a secret user", info={"a secret": "key"})
    await one.join("room", secret)
    await two.join("room", member("b", user="a secret user"))
    await lab.expire(one)
    values = [lab.database.run(list, lab.rows(model).values()) for model in MODELS]
    assert "room" in str(values)
    assert "secret" not in str(values)
    [loss] = (await two.evict(one)).losses
    assert (loss.member, loss.answer.user_count) == (secret, 1)
    assert await lab.store.users("room") == {"a secret user"}
    assert "secret" not in str(lab.database.run(list, lab.rows(models.Node).values()))


#: What is done to which row, and what verify() says of it.
HARM = {
    "a group's count": (models.Group, {"count": 8}, ["It counts 8 members and has 3."]),
    "its users": (models.Group, {"user_count": 0}, ["It counts 0 users and has 3."]),
    "who is told": (models.Group, {"told": 9}, ["9 members who want to be told and"]),
    "a part's count": (models.Part, {"count": 9}, ["A process counts 9 members and"]),
    "memberships": (
        models.Node,
        {"memberships": 9},
        ["counts 9 memberships and has 2"],
    ),
    "groups": (models.Book, {"groups": 9}, ["The layer counts 9 groups and has 2."]),
    "no members": (models.Membership, None, ["It counts 1 members and has 0."]),
    "no parts": (models.Part, None, ["belongs to no group", "It counts 3 members and"]),
    "no groups": (models.Group, None, ["belongs to no group", "The layer counts 2"]),
}


@every_database
@pytest.mark.parametrize("harm", HARM)
async def test_harm_is_found_and_mended(lab, harm):
    await check_harm(lab, *HARM[harm])


@every_database
@pytest.mark.parametrize("harm", HARM)
async def test_harm_is_found_and_mended_in_pages(lab, harm, monkeypatch):
    monkeypatch.setattr(verification, "PAGE", 2)
    monkeypatch.setattr(verification, "LIMIT", 1)
    await check_harm(lab, *HARM[harm])


@every_database
@pytest.mark.parametrize("values", [None, {"deadline": 1}])
async def test_harm_of_who_lingers_is_found_and_mended(lab, values):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN)
    await one.join("room", BOB)
    await one.leave("room", ANN, grace=60)
    before = await lab.store.membership_count()
    row = lab.rows(models.Node).filter(id=models.lingering_id("default"))
    if values is None:
        assert lab.database.run(row.delete)[0]
    else:
        assert lab.database.run(row.update, **values)
    await check_mended(lab.store, ["Those who linger are not found."])
    assert await lab.store.count("room") == before == 2
    assert (await one.renew()).overdue == []
    back = member("new", ANN.user_id)
    assert (await two.join("room", back, resume=())).outcome == "resumed"
    assert (await verify_all(lab.store))[0] == []


async def check_harm(lab, model, values, expected):
    """What is done to some rows is found and mended."""
    one = await lab.node()
    await one.commit(Join("room", ANN, told=True), Join("a:b", ANN))
    two = await lab.node()
    await two.commit(Join("room", BOB), Join("room", CAT))
    rows = lab.rows(model)
    if values is None:
        lab.database.run(rows.all().delete)
    else:
        lab.database.run(rows.update, **values)
    await check_mended(lab.store, expected)
    if values is None:
        # What only the processes know is given back after their next renewals.
        held = Holdings(1, 2, {"room": (1, ANN.user_id), "a:b": (1, ANN.user_id)})
        assert (await one.renew(holdings=held)).state == "emptied"
        for node in one, two:
            node.held.clear()
        lab.empty()


@every_database
async def test_no_page_compares_much(lab, monkeypatch):
    monkeypatch.setattr(verification, "PAGE", 10)
    monkeypatch.setattr(verification, "LIMIT", 20)
    node = await lab.node()
    joins = [Join(f"g{n}", member(f"m{n}-{k}")) for n in range(15) for k in range(6)]
    await node.commit(*joins)
    checked, cursor = [], None
    while cursor or not checked:
        findings, cursor = await lab.store.verify(cursor)
        checked.append(findings.checked)
    parts, members, groups, nodes, total = split(checked)
    assert parts == [10, 5] and members == [10] * 9
    assert groups == [4, 4, 4, 3], "that is 24 members each"
    assert (nodes, total) == ([1], [])


def split(checked):
    """Return the pages of each step, which ends with an empty one."""
    steps = [[]]
    for number in checked:
        if number:
            steps[-1].append(number)
        else:
            steps.append([])
    return steps[:-1]


@every_database
async def test_it_is_read_where_nobody_is_connected_as_django_reads(lab):
    """In the thread and with the connection of the caller."""
    node = await lab.node()
    await node.join("room", ANN)
    reader = make_store("default", InMemoryChannelLayer())
    before = threading.active_count()

    async def read():
        return await reader.count("room"), await reader.users("room")

    def read_in_thread():
        try:
            return asyncio.run(read())
        finally:
            connections[lab.database.alias].close()

    assert await reader.count("room") == 1
    assert threading.active_count() <= before + 1
    assert await asyncio.to_thread(read_in_thread) == (1, {"user-a"})
    await reader.watch("specific.one!a", 0)
    assert reader._threads is None
    await sync_to_async(lambda: connections[lab.database.alias].close())()


@on_servers
async def test_connections_that_were_closed_fail_no_call(lab):
    """Whatever is called first afterwards opens another one."""
    node = await lab.node()
    calls = [
        partial(node.join, "room", ANN),
        partial(lab.store.count, "room"),
        partial(node.leave, "room", ANN),
        node.renew,
        node.release,
    ]
    await node.join("other", ANN)
    await node.leave("other", ANN)
    for call in calls:
        await asyncio.to_thread(lab.database.server.kill_clients)
        await call()
    lab.database.run(lambda: connections[lab.database.alias].close())


@on_sqlite
async def test_who_waits_for_another_writer_is_told_in_time(lab, monkeypatch):
    """SQLite has one writer."""
    monkeypatch.setattr("channels_groups.database.store.TIMEOUT", 1.5)
    node = await lab.node()
    alias = lab.database.alias

    def execute(sql):
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)

    lab.database.run(execute, "BEGIN IMMEDIATE")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(StoreUnavailable, match="locked|TimeoutError"):
        await node.join("room", ANN)
    assert loop.time() - began < 2
    assert await lab.store.count("room") == 0, "reading goes on"
    lab.database.run(execute, "ROLLBACK")
    await aeventually(
        partial(node.commit, Join("room", ANN), sequence=1),
        ignoring=(StoreUnavailable,),
    )


@on_sqlite
async def test_threads_end_with_the_last_who_attaches(lab):
    store = lab.store
    names = {"groups: leases", "groups: writing", "groups: reading"}

    def threads():
        return sorted(names & {thread.name for thread in threading.enumerate()})

    assert threads() == sorted(names)
    store.attach()
    await store.detach()
    assert threads() == sorted(names)
    await store.detach()
    await aeventually(threads, equals=[])
    assert await store.count("room") == 0
    await sync_to_async(lambda: connections[lab.database.alias].close())()
    store.attach()


@on_sqlite
async def test_no_job_is_done_on_a_connection_that_is_not_prepared(lab, monkeypatch):
    prepared = []

    def prepare(connection):
        prepared.append(connection.connection)
        if len(prepared) == 1:
            raise DatabaseError("not now")

    monkeypatch.setattr(lab.store._vendor, "prepare", prepare)
    worker = Worker(lab.database.alias, lab.store._vendor, "a worker")
    jobs = [
        worker.submit(lambda: connections[lab.database.alias].connection)
        for _ in range(3)
    ]
    await asyncio.wrap_future(worker.stop())
    with pytest.raises(DatabaseError, match="not now"):
        jobs[0].result()
    first, second = prepared
    assert [job.result() for job in jobs[1:]] == [second, second]
    assert first is not second


@on_sqlite
async def test_what_is_given_up_before_it_begins_is_not_done(lab):
    worker = Worker(lab.database.alias, lab.store._vendor, "a worker")
    go, done = threading.Event(), []
    first = worker.submit(go.wait)
    second = worker.submit(partial(done.append, 2))
    worker.give_up(second)
    go.set()
    await asyncio.wrap_future(worker.stop())
    assert (first.result(), second.cancelled(), done) == (True, True, [])

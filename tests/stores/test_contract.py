"""What stores/base.py promises, held against every store."""

import asyncio
from collections import Counter

import pytest
from channels.layers import get_channel_layer

from channels_groups import names
from channels_groups.stores import make_store
from channels_groups.stores import redis as redis_store
from channels_groups.stores.base import (
    PAGE,
    Holdings,
    Join,
    LeaseLost,
    Leave,
    StoreRebuilding,
    Summary,
    Update,
)

from ..helpers import layers
from ..helpers.eventually import aeventually
from .conftest import CONNECTED_KINDS, KINDS, KNOWN_KINDS, REDIS_KINDS
from .lab import LEASE, RedisLab, list_groups, list_members, member

every_store = pytest.mark.parametrize("kind", KINDS, indirect=True)
#: Those of which an answer, a connection or all data may be lost.
server_stores = pytest.mark.parametrize("kind", KINDS[1:], indirect=True)
connected_stores = pytest.mark.parametrize("kind", CONNECTED_KINDS, indirect=True)
known_stores = pytest.mark.parametrize("kind", KNOWN_KINDS, indirect=True)
redis_stores = pytest.mark.parametrize("kind", REDIS_KINDS, indirect=True)
unsealed_core = pytest.mark.parametrize("kind", ["core", "core-redis7"], indirect=True)

ANN, BOB, CAT, DAN = (member(id, user=f"user-{id}") for id in ("a", "b", "c", "d"))

NAMES = [
    *("room", "a", "a:b", "a:b:c", "members:a:b", "groups:index", "nodes:x", ":", "::"),
    *("*", "a*", "a*b", "?", "a?b", "[a-c]", "[^a]", "[", "]", "a]", "\\", "a\\b"),
    *("\\*", "^", "^x", "-", "a-c", "groups.room", "..", "%s", "{0}", "'", '"', "$(x)"),
    *(" ", "  ", "\t", "a\nb", "room\n", "\x00", "\x00a", "a\x00", "\x7f", "\ufeff"),
    *("Zürich", "e\u0301", "\u00e9", "ﬁ", "fi", "İ", "i", "I", "ß", "SS", "ء", "١٢"),
    *(
        "日本語",
        "קבוצה",
        "กลุ่ม",
        "नमस्ते",
        "🏳️‍🌈",
        "👩‍👩‍👧",
        "\U0010ffff",
        "\ue000",
    ),
    *("x" * 99, "x" * 100, "x" * 1000, "👍" * 1000, "ann@example.org", "/path/?q=1#a"),
]


def outcomes(answers):
    return [answer.outcome for answer in answers]


async def revisions_of(lab, *groups):
    return [one.revision for one in await lab.store.summaries(0, groups)]


def facts(answer):
    return answer.outcome, answer.count, answer.user_count


# Joins and leaves


@every_store
async def test_the_first_creates_and_the_last_destroys(lab):
    node = await lab.node()
    answers = [
        await node.join("room", ANN),
        await node.join("room", BOB),
        await node.leave("room", ANN),
        await node.leave("room", BOB),
    ]
    assert [facts(answer) for answer in answers] == [
        ("created", 1, 1),
        ("joined", 2, 2),
        ("left", 1, 1),
        ("destroyed", 0, 0),
    ]


@every_store
async def test_a_group_is_created_and_destroyed_once_over_all_nodes(lab):
    one, two = await lab.node(), await lab.node()
    assert facts(await one.join("room", ANN)) == ("created", 1, 1)
    assert facts(await two.join("room", BOB)) == ("joined", 2, 2)
    assert facts(await one.leave("room", ANN)) == ("left", 1, 1)
    assert facts(await two.leave("room", BOB)) == ("destroyed", 0, 0)


@every_store
async def test_what_changes_nothing_is_unchanged(lab):
    node = await lab.node()
    assert facts(await node.leave("room", ANN)) == ("unchanged", 0, 0)
    await node.join("room", ANN)
    assert facts(await node.join("room", ANN)) == ("unchanged", 1, 1)
    assert facts(await node.leave("room", BOB)) == ("unchanged", 1, 1)
    assert facts(await node.leave("room", ANN)) == ("destroyed", 0, 0)


@every_store
async def test_the_operations_of_one_commit_are_carried_out_in_order(lab):
    node = await lab.node()
    answers = await node.commit(
        Join("room", ANN),
        Join("other", ANN),
        Join("room", BOB),
        Leave("room", ANN),
        Leave("room", BOB),
        Join("room", CAT),
        Join("room", CAT),
    )
    assert [facts(answer) for answer in answers] == [
        ("created", 1, 1),
        ("created", 1, 1),
        ("joined", 2, 2),
        ("left", 1, 1),
        ("destroyed", 0, 0),
        ("created", 1, 1),
        ("unchanged", 1, 1),
    ]
    assert await lab.store.count("room") == 1


@every_store
async def test_users_are_counted_once_and_connections_each(lab):
    one, two = await lab.node(), await lab.node()
    empty, nobody = member("e", user=""), member("n")
    assert facts(await one.join("room", member("1", "Ann"))) == ("created", 1, 1)
    assert facts(await two.join("room", member("2", "Ann"))) == ("joined", 2, 1)
    assert facts(await one.join("room", nobody)) == ("joined", 3, 1)
    assert facts(await one.join("room", empty)) == ("joined", 4, 2)
    assert await lab.store.users("room") == {"Ann", ""}
    assert await lab.store.user_count("room") == 2
    assert facts(await one.leave("room", member("1", "Ann"))) == ("left", 3, 2)
    assert facts(await two.leave("room", member("2", "Ann"))) == ("left", 2, 1)
    assert facts(await one.leave("room", nobody)) == ("left", 1, 1)
    assert await lab.store.users("room") == {""}


@every_store
async def test_the_connections_of_a_user_in_a_group_are_counted(lab):
    """The first and the last of them are known from the answers."""
    one, two = await lab.node(), await lab.node()
    first, second, nobody = member("1", "Ann"), member("2", "Ann"), member("n")
    answers = [
        await one.join("room", first),
        await two.join("room", second),
        await two.join("room", nobody),
        await two.update("room", second),
        await one.leave("room", first),
        await two.leave("room", nobody),
        await two.leave("room", second),
        await one.join("room", first),
    ]
    connections = [answer.connections for answer in answers]
    assert connections == [1, 2, 0, 2, 1, 0, 0, 1]
    await lab.expire(one)
    [loss] = (await two.evict(one)).losses
    assert loss.answer.connections == 0


@every_store
async def test_an_update_changes_the_member_and_the_revision_only(lab):
    one, two = await lab.node(), await lab.node()
    joined = await one.join("room", member("1", "Ann", {"a": 1}))
    await two.join("room", BOB)
    new = member("1", "Ann", {"a": 2, "b": "ü" * 5000})
    answer = await one.update("room", new)
    assert facts(answer) == ("updated", 2, 2)
    assert answer.revision > joined.revision
    assert await lab.store.member("room", "1") == new
    assert (await one.commit(Update("room", new), sequence=one.sequence)) == [answer]
    assert facts(await two.update("room", new)) == ("unchanged", 2, 2)
    assert facts(await one.update("other", new)) == ("unchanged", 0, 0)
    assert facts(await one.leave("room", new)) == ("left", 1, 1)
    assert facts(await one.update("room", new)) == ("unchanged", 1, 1)


@every_store
async def test_each_change_names_the_one_before_as_long_as_somebody_is_told(lab):
    """So who has missed one finds it out by the next."""
    one, two = await lab.node(), await lab.node()
    assert (await one.join("room", ANN)).previous == 0
    assert await revisions_of(lab, "room", "other") == [0, 0]
    chain = [
        await two.join("room", BOB, told=True),
        *await one.commit(
            Join("room", CAT, None, True),
            Update("room", ANN),
            Join("other", ANN),
            Leave("room", ANN),
        ),
        await two.update("room", BOB, told=True),
    ]
    other = chain.pop(3)
    assert (other.previous, other.told) == (0, False)
    assert chain[0].previous == 0
    revisions = [answer.revision for answer in chain]
    assert [answer.previous for answer in chain[1:]] == revisions[:-1]
    assert await revisions_of(lab, "other", "room") == [0, revisions[-1]]
    await lab.expire(one)
    losses = (await two.evict(one)).losses
    [lost] = [loss.answer for loss in losses if loss.group == "room"]
    assert (lost.previous, lost.told) == (revisions[-1], True)
    assert await revisions_of(lab, "room") == [lost.revision]
    last = await two.leave("room", BOB, told=True)
    assert (last.previous, last.told) == (lost.revision, False)
    assert (await two.join("room", BOB, told=True)).previous == 0


@every_store
async def test_groups_are_looked_at_together(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", member("a", "ann"), told=True)
    await two.join("room", member("b", "ann"))
    await two.join("room", member("c", "cat"))
    await one.join("other", member("d"))
    room, other, none = await lab.store.summaries(0, ["room", "other", "none"])
    assert (room.count, room.user_count) == (3, 2)
    assert (other, none) == (Summary(0, 1, 0), Summary(0, 0, 0))
    left = await two.leave("room", member("c", "cat"))
    [after] = await lab.store.summaries(0, ["room"])
    assert after == Summary(left.revision, 2, 1) and after.revision > room.revision
    await lab.expire(two)
    [without] = await lab.store.summaries(0, ["room"])
    assert without == Summary(left.revision, 1, 1)
    [loss] = (await one.evict(two)).losses
    [without] = await lab.store.summaries(0, ["room"])
    assert without == Summary(loss.answer.revision, 1, 1)


@every_store
async def test_revisions_grow_over_destroy_and_create(lab):
    one, two = await lab.node(), await lab.node()
    revisions = []
    for _ in range(3):
        revisions.append((await one.join("room", ANN)).revision)
        revisions.append((await two.join("room", BOB)).revision)
        revisions.append((await one.leave("room", ANN)).revision)
        revisions.append((await two.leave("room", BOB)).revision)
    assert revisions == sorted(set(revisions))


@every_store
async def test_revisions_grow_over_a_store_that_nobody_used_meanwhile(lab):
    one = await lab.node()
    before = (await one.join("room", ANN)).revision
    await one.leave("room", ANN)
    await one.release()
    two = await lab.node()
    assert (await two.join("room", ANN)).revision > before


@every_store
async def test_a_repeated_sequence_number_gives_the_first_answer(lab):
    node = await lab.node()
    operations = Join("room", ANN), Join("room", BOB), Leave("room", ANN)
    first = await node.commit(*operations, sequence=7)
    assert outcomes(first) == ["created", "joined", "left"]
    again = await node.commit(*operations, sequence=7)
    assert again == first
    assert facts(await node.join("room", CAT)) == ("joined", 2, 2)
    assert await lab.store.membership_count() == 2


@every_store
async def test_a_lower_sequence_number_is_refused(lab):
    node = await lab.node()
    await node.commit(Join("room", ANN), sequence=7)
    with pytest.raises(LeaseLost):
        await node.commit(Join("room", BOB), sequence=6)
    assert await lab.store.count("room") == 1


@every_store
async def test_each_node_has_sequence_numbers_of_its_own(lab):
    one, two = await lab.node(), await lab.node()
    await one.commit(Join("room", ANN), sequence=1)
    assert outcomes(await two.commit(Join("room", BOB), sequence=1)) == ["joined"]


@every_store
async def test_a_commit_without_a_lease_is_refused(lab):
    node = await lab.node()
    await node.release()
    with pytest.raises(LeaseLost):
        await node.join("room", ANN)
    assert await lab.store.count("room") == 0
    assert not lab.keys()


@every_store
async def test_told_says_whether_any_member_wants_to_be_told(lab):
    one, two = await lab.node(), await lab.node()
    assert not (await one.join("room", ANN)).told
    assert (await two.join("room", BOB, told=True)).told
    assert (await one.join("room", CAT)).told
    assert not (await one.join("other", CAT)).told
    assert (await one.join("room", DAN, told=True)).told
    assert (await two.leave("room", BOB, told=True)).told
    assert (await one.leave("room", ANN)).told
    assert not (await one.leave("room", DAN, told=True)).told


@every_store
async def test_told_is_right_within_one_commit(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", member("z"))
    answers = await one.commit(
        Join("room", ANN),
        Join("room", BOB, told=True),
        Join("room", CAT, told=True),
        Leave("room", BOB, told=True),
        Leave("room", ANN),
        Leave("room", CAT, told=True),
        Join("room", CAT, told=True),
        Leave("room", CAT, told=True),
    )
    assert [answer.told for answer in answers] == [
        *(False, True, True, True, True, False, True, False)
    ]


# Limits


@every_store
async def test_a_full_group_takes_nobody_until_one_leaves(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN, limit=2)
    await two.join("room", BOB, limit=2)
    assert facts(await one.join("room", CAT, limit=2)) == ("full", 2, 2)
    assert await lab.store.member("room", CAT.id) is None
    assert facts(await one.join("room", CAT, limit=3)) == ("joined", 3, 3)
    await two.leave("room", BOB)
    assert facts(await two.join("room", BOB, limit=2)) == ("full", 2, 2)
    await one.leave("room", CAT)
    assert facts(await two.join("room", BOB, limit=2)) == ("joined", 2, 2)


@every_store
async def test_a_limit_of_none_admits_and_of_nought_refuses(lab):
    node = await lab.node()
    assert facts(await node.join("room", ANN, limit=0)) == ("full", 0, 0)
    assert not await lab.store.group_count()
    assert facts(await node.join("room", ANN, limit=None)) == ("created", 1, 1)


@every_store
async def test_a_member_of_a_full_group_is_in_it(lab):
    node = await lab.node()
    await node.join("room", ANN, limit=1)
    assert facts(await node.join("room", ANN, limit=1)) == ("unchanged", 1, 1)


@every_store
async def test_a_race_never_lets_one_too_many_in(lab):
    nodes = [await lab.node() for _ in range(8)]
    joins = [
        node.commit(
            *(Join("room", member(f"{node.id}-{n}"), limit=5) for n in range(3))
        )
        for node in nodes
    ]
    answers = [answer for batch in await asyncio.gather(*joins) for answer in batch]
    assert Counter(outcomes(answers)) == {"created": 1, "joined": 4, "full": 19}
    admitted = [answer for answer in answers if answer.outcome != "full"]
    assert sorted(answer.count for answer in admitted) == [1, 2, 3, 4, 5]
    assert await lab.store.count("room") == 5


@every_store
async def test_two_nodes_that_race_create_and_destroy_once(lab):
    nodes = [await lab.node() for _ in range(4)]
    for _ in range(10):
        joined = await asyncio.gather(
            *(node.join("room", member(node.id)) for node in nodes)
        )
        left = await asyncio.gather(
            *(node.leave("room", member(node.id)) for node in nodes)
        )
        assert Counter(outcomes(joined)) == {"created": 1, "joined": 3}
        assert Counter(outcomes(left)) == {"left": 3, "destroyed": 1}


# Reading


@every_store
async def test_a_member_is_read_as_it_was_written(lab):
    node = await lab.node()
    written = [
        member("plain"),
        member("user", user="Zoë:12:☃"),
        member("info", info={"name": "Zoë", "n": [1, 2.5, None, True, {"a": "\x00"}]}),
        member("odd", channel="specific.inmemory!abcDEF"),
        member("long", channel=f"pre.fix!{'0123456789abcdef' * 2}"),
        member("digits", user="12:"),
        member("huge", info={"n": 2**80, "deep": [[[["x" * 8000]]]]}),
    ]
    for one in written:
        await node.join("room", one)
    for one in written:
        assert await lab.store.member("room", one.id) == one
    found, _ = await list_members(lab.store, "room")
    assert sorted(found) == sorted(written)


@every_store
async def test_nothing_is_read_of_a_group_that_is_not_there(lab):
    store = lab.store
    assert await store.count("room") == 0
    assert await store.user_count("room") == 0
    assert await store.users("room") == set()
    assert await store.member("room", "a") is None
    assert await list_members(store, "room") == ([], 1)
    assert await list_groups(store) == ([], 1)
    assert await list_groups(store, "ro") == ([], 1)
    assert await store.group_count() == 0
    assert await store.membership_count() == 0
    assert await store.channels() == []


@every_store
async def test_the_counts_of_all_groups(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("a", ANN)
    await one.join("b", ANN)
    await two.join("b", BOB)
    assert await lab.store.group_count() == 2
    assert await lab.store.membership_count() == 3
    assert sorted(await lab.store.channels()) == sorted(
        node.incarnation.channel for node in (one, two)
    )
    await one.leave("a", ANN)
    assert await lab.store.group_count() == 1
    assert await lab.store.membership_count() == 2


@every_store
async def test_the_nodes_with_their_leases(lab):
    assert await lab.store.nodes() == []
    one, two = await lab.node(), await lab.node(lease=2 * LEASE)
    await one.commit(Join("room", ANN), Join("room", BOB), Join("other", ANN))
    await two.join("room", CAT)
    await one.renew(holdings=Holdings(1, 3, connections=5))
    states = {state.id: state for state in await lab.store.nodes()}
    assert states.keys() == {one.id, two.id}
    assert [state[:5] for state in (states[one.id], states[two.id])] == [
        (0, one.id, one.incarnation.process, 5, 3),
        (0, two.id, two.incarnation.process, 0, 1),
    ]
    assert LEASE / 2 < states[one.id].remaining <= LEASE
    assert LEASE < states[two.id].remaining <= 2 * LEASE


@every_store
async def test_a_node_is_listed_until_it_is_evicted(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", BOB)
    await lab.expire(two)
    states = {state.id: state for state in await lab.store.nodes()}
    assert states[two.id].remaining <= 0 < states[one.id].remaining
    assert states[two.id].memberships == 1
    await one.evict_all(two)
    assert [state.id for state in await lab.store.nodes()] == [one.id]
    await one.release()
    assert await lab.store.nodes() == []


@server_stores
async def test_a_node_is_listed_again_when_the_store_was_emptied(lab):
    node = await lab.node()
    lab.empty()
    assert (await node.renew()).state == "emptied"
    assert await lab.store.nodes() == []
    await node.register()
    (state,) = await lab.store.nodes()
    assert state.process == node.incarnation.process
    await lab.rebuilt()


@every_store
async def test_members_come_in_pages(lab):
    one, two = await lab.node(), await lab.node()
    wanted = [member(f"m{n}", user=f"u{n}") for n in range(PAGE + 100)]
    for node, part in (one, wanted[: PAGE + 50]), (two, wanted[PAGE + 50 :]):
        for start in range(0, len(part), 400):
            await node.commit(*(Join("room", m) for m in part[start : start + 400]))
    members, pages = await list_members(lab.store, "room")
    assert pages >= 2
    assert sorted(members) == sorted(wanted)
    assert await lab.store.users("room") == {one.user_id for one in wanted}
    assert await lab.store.user_count("room") == len(wanted)
    first, _ = await lab.store.members("room", None)
    assert len(first) <= 2 * PAGE


@every_store
async def test_groups_come_in_pages_with_most_members_first(lab):
    node = await lab.node()
    wanted = {f"g{n}": 1 for n in range(PAGE + 100)} | {"big": 3, "bigger": 4}
    joins = [
        Join(group, member(f"m{n}"))
        for group, count in wanted.items()
        for n in range(count)
    ]
    for start in range(0, len(joins), 400):
        await node.commit(*joins[start : start + 400])
    groups, pages = await list_groups(lab.store)
    assert pages >= 2
    assert groups[:2] == [("bigger", 4), ("big", 3)]
    assert dict(groups) == wanted and len(groups) == len(wanted)
    prefixed, _ = await list_groups(lab.store, "g1")
    assert dict(prefixed) == {name: 1 for name in wanted if name.startswith("g1")}
    assert await lab.store.group_count() == len(wanted)


@every_store
async def test_groups_are_ranked_by_their_counts(lab):
    one, two = await lab.node(), await lab.node()
    counts = {f"g{n}": n for n in range(1, 8)}
    for group, count in counts.items():
        await one.commit(*(Join(group, member(f"m{n}")) for n in range(count)))
    await two.commit(Join("g3", member("x")), Join("lonely", member("x")))
    ranking = lab.store.ranking
    assert await ranking(0, 0, 3) == [("g7", 7), ("g6", 6), ("g5", 5)]
    assert sorted(await ranking(0, 3, 2)) == [("g3", 4), ("g4", 4)]
    assert sorted(await ranking(0, 0, 2, True)) == [("g1", 1), ("lonely", 1)]
    assert await ranking(0, 2, 1, ascending=True) == [("g2", 2)]
    assert await ranking(0, 100, 10) == []
    await lab.expire(two)
    # Without its member; its rank changes when it is evicted.
    living = {group: count for group, count in await ranking(0, 0, 10) if count}
    assert living == counts


@every_store
async def test_members_are_listed_node_by_node_from_another_process(lab):
    one, two = await lab.node(), await lab.node()
    mine = [member(f"m{n}") for n in range(PAGE + 150)]
    for start in range(0, len(mine), 400):
        await one.commit(*(Join("room", each) for each in mine[start : start + 400]))
    await two.join("room", member("x"))
    nodes = {one.incarnation.id: one, two.incarnation.id: two}
    assert set(await lab.store.group_nodes("room")) == set(nodes)
    assert await lab.store.group_nodes("nobody's") == []

    found, pages, cursor = [], 0, ""
    while cursor or not pages:
        page, cursor = await lab.store.node_members(
            "room", one.incarnation.id, str(cursor), 100
        )
        found, pages = found + page, pages + 1
        if pages == 1:
            await one.leave("room", page[0])
    assert {each.id for each in mine} == {each.id for each in found}
    assert pages >= 4
    page, cursor = await lab.store.node_members("room", two.incarnation.id, "")
    assert ([each.id for each in page], cursor) == (["x"], "")
    assert await lab.store.node_members("room", "nobody", "") == ([], "")
    await lab.expire(two)
    assert await lab.store.group_nodes("room") == [one.incarnation.id]


@every_store
async def test_names_of_every_kind_stay_apart(lab):
    one, two = await lab.node(), await lab.node()
    members = [member(f"m{n}", user=name[:100]) for n, name in enumerate(NAMES)]
    first = await one.commit(*(Join(*pair) for pair in zip(NAMES, members)))
    assert {facts(answer) for answer in first} == {("created", 1, 1)}
    second = await two.commit(*(Join(name, DAN) for name in NAMES))
    assert {facts(answer) for answer in second} == {("joined", 2, 2)}
    for number, name in enumerate(NAMES):
        found, _ = await list_members(lab.store, name)
        assert {one.id for one in found} == {f"m{number}", DAN.id}, name
        assert await lab.store.users(name) == {name[:100], DAN.user_id}
        assert (await lab.store.member(name, f"m{number}")).user_id == name[:100]
    groups, _ = await list_groups(lab.store)
    assert sorted(groups) == sorted((name, 2) for name in NAMES)


@every_store
async def test_a_prefix_is_no_pattern(lab):
    node = await lab.node()
    await node.commit(*(Join(name, ANN) for name in NAMES))
    for prefix in {name[:length] for name in NAMES for length in (1, 3, 1000)}:
        groups, _ = await list_groups(lab.store, prefix)
        wanted = [name for name in NAMES if name.startswith(prefix)]
        assert sorted(name for name, _ in groups) == sorted(wanted), prefix


# Leases


@every_store
async def test_reading_leaves_out_nodes_whose_lease_has_run_out(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("shared", member("1", user="both"))
    await two.join("shared", member("2", user="both"))
    await two.join("shared", member("3", user="only two"))
    await two.join("lonely", member("3", user="only two"))
    await lab.expire(two)
    store = lab.store
    assert await store.count("shared") == 1
    assert await store.count("lonely") == 0
    assert await store.user_count("shared") == 1
    assert await store.users("shared") == {"both"}
    assert await store.user_count("lonely") == 0
    assert await store.users("lonely") == set()
    assert await store.member("shared", "2") is None
    assert (await store.member("shared", "1")).id == "1"
    assert [one.id for one in (await list_members(store, "shared"))[0]] == ["1"]
    assert (await list_members(store, "lonely"))[0] == []
    assert await list_groups(store) == ([("shared", 1)], 1)
    assert await list_groups(store, "l") == ([], 1)
    assert await list_groups(store, "s") == ([("shared", 1)], 1)
    assert await store.group_count() == 1
    assert await store.membership_count() == 1
    assert await store.channels() == [one.incarnation.channel]


@redis_stores
async def test_no_script_looks_at_all_groups_of_a_large_dead_node(lab):
    one, two, three = [await lab.node() for _ in range(3)]
    names = [f"g{n}" for n in range(3_000)]
    for start in range(0, len(names), 500):
        await two.commit(*(Join(name, BOB) for name in names[start : start + 500]))
    await one.commit(Join("g7", ANN), Join("mine", ANN))
    await three.commit(*(Join(name, CAT) for name in ["g7", "g8", "theirs"]))
    assert await lab.store.group_count() == 3_002
    await lab.expire(two, three)
    with lab.server.client() as client:

        def calls():
            stats = client.info("commandstats")
            return [
                stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
                for name in ("evalsha", "hlen")
            ]

        before = calls()
        assert await lab.store.membership_count() == 2
        assert calls() == [before[0] + 1, before[1]], "that is in the books"
        before = calls()
        assert await lab.store.group_count() == 2  # "g7" and "mine"
        scripts, looked = (now - then for now, then in zip(calls(), before))
        assert looked > 2 * 3_000 and looked / scripts < 1.2 * PAGE
        await lab.expire(one)
        before = calls()
        assert await lab.store.group_count() == 0
        assert calls() == [before[0] + 1, before[1]], "nobody is left"


@every_store
async def test_a_commit_sees_the_members_of_an_expired_node(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", BOB)
    await lab.expire(two)
    assert facts(await one.join("room", ANN, limit=1)) == ("full", 1, 1)
    assert facts(await one.join("room", ANN)) == ("joined", 2, 2)
    assert facts(await one.leave("room", ANN)) == ("left", 1, 1)


@every_store
async def test_an_expired_node_that_renews_is_there_again(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", BOB)
    await lab.expire(two)
    assert (await two.renew()).state == "alive"
    assert await lab.store.count("room") == 1
    assert two.id not in (await one.renew()).overdue


@every_store
async def test_renewing_puts_off_the_end(lab):
    one, two = await lab.node(), await lab.node(lease=0.05)
    renewal = await two.renew()
    assert (renewal.state, renewal.epoch) == ("alive", two.epoch)
    await lab.expire(one)
    assert await lab.store.channels() == [two.incarnation.channel]


@every_store
async def test_an_expired_node_is_overdue_for_the_others_only(lab):
    one, two = await lab.node(), await lab.node()
    assert (await one.renew()).overdue == []
    await lab.expire(two)
    assert (await one.renew()).overdue == [two.id]
    assert (await two.renew()).overdue == []
    assert (await one.renew()).overdue == []


@connected_stores
async def test_who_missed_renewals_is_overdue_only_if_its_connection_broke(lab):
    one, silent, broken = await lab.node(), await lab.node(), await lab.node()
    await silent.join("room", ANN)
    await broken.join("room", BOB)
    await lab.disconnect(broken)

    async def overdue():
        return (await one.renew(renewal=0.1)).overdue

    # Both are silent for longer than 1.3 renewals; only one has lost its connection.
    assert await aeventually(overdue) == [broken.id]
    assert (await one.evict(silent, renewal=0.1)).losses == []
    [loss] = (await one.evict(broken, renewal=0.1)).losses
    assert loss.member == BOB
    assert await lab.store.count("room") == 1


@connected_stores
async def test_a_node_whose_connection_broke_is_not_evicted_before_it_is_overdue(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", BOB)
    await lab.disconnect(two)
    assert (await one.renew(renewal=20)).overdue == []
    assert (await one.evict(two, renewal=20)).losses == []
    assert await lab.store.count("room") == 1


@connected_stores
async def test_a_renewal_mends_a_broken_connection(lab):
    one, two = await lab.node(), await lab.node()
    await lab.disconnect(two)
    await aeventually(lambda: not lab.is_connected(two))
    await two.renew()
    assert lab.is_connected(two)
    assert (await one.renew(renewal=0.001)).overdue == []


@every_store
async def test_a_released_node_leaves_nothing(lab):
    node = await lab.node()
    await node.join("room", ANN, told=True)
    await node.leave("room", ANN, told=True)
    await node.release()
    assert not lab.keys()
    assert await lab.store.channels() == []
    with pytest.raises(LeaseLost):
        await node.join("room", ANN)


@every_store
async def test_a_node_may_release_twice_and_the_others_stay(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", BOB)
    await one.release()
    await one.release()
    assert await lab.store.count("room") == 1
    assert (await two.renew()).state == "alive"


@server_stores
async def test_a_node_that_releases_is_not_taken_for_one_that_lost_its_data(lab):
    for _ in range(10):
        one = await lab.node()
        assert outcomes(await one.commit(Join("room", ANN))) == ["created"]
        await one.leave("room", ANN)
        _, two = await asyncio.gather(one.release(), lab.node())
        assert outcomes(await two.commit(Join("other", ANN))) == ["created"]
        await two.leave("other", ANN)
        await two.release()


# Eviction


@every_store
async def test_every_member_of_a_dead_node_is_lost_once(lab):
    dead, one, two = [await lab.node() for _ in range(3)]
    sizes = {"big": 90, "middle": 35, "small": 1, "shared": 30}
    members = {
        (group, f"{group}{n}"): member(f"{group}{n}", user=f"u{n // 2}", info={"n": n})
        for group, size in sizes.items()
        for n in range(size)
    }
    await dead.commit(*(Join(group, m) for (group, _), m in members.items()))
    last = await one.join("shared", member("stays", user="u0"))
    await lab.expire(dead)
    batches = sum(
        await asyncio.gather(
            one.evict_all(dead, limit=20), two.evict_all(dead, limit=20)
        ),
        [],
    )
    losses = [loss for batch in batches for loss in batch.losses]
    assert all(len(batch.losses) <= 20 for batch in batches)
    lost = Counter((loss.group, loss.member.id) for loss in losses)
    assert lost == Counter(members.keys())
    assert all(loss.member == members[loss.group, loss.member.id] for loss in losses)
    for group, size in sizes.items():
        check_losses(group, size, losses, survivors=int(group == "shared"))
    revisions = [loss.answer.revision for loss in losses]
    assert len(set(revisions)) == len(revisions)
    assert min(revisions) > last.revision
    assert await lab.store.membership_count() == 1
    assert await list_groups(lab.store) == ([("shared", 1)], 1)
    assert await lab.store.users("shared") == {"u0"}
    assert (await one.renew()).overdue == []


def check_losses(group, size, losses, survivors):
    answers = [loss.answer for loss in losses if loss.group == group]
    answers.sort(key=lambda answer: answer.revision)
    counts = [answer.count for answer in answers]
    assert counts == list(range(size - 1 + survivors, survivors - 1, -1))
    users = [answer.user_count for answer in answers]
    assert users == sorted(users, reverse=True)
    assert users[-1] == survivors
    ended = [answer.outcome for answer in answers].count("destroyed")
    assert ended == (0 if survivors else 1)
    if not survivors:
        assert answers[-1].outcome == "destroyed"


@every_store
async def test_what_a_survivor_discards_from_the_layer(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.join("room", ANN)
    await dead.join("other", ANN)
    await lab.expire(dead)
    [batch] = await one.evict_all(dead)
    written = {entry for group in ("room", "other") for entry in dead.entries(group)}
    if type(lab.store).__name__ == "CoreStore":
        assert batch.entries == []
        assert not any(":group:" in key for key in lab.keys())
    else:
        assert set(batch.entries) == written
    await one.join("room", BOB)


@unsealed_core
async def test_commits_write_the_entries_of_the_layer_as_it_does_itself(lab, server):
    node = await lab.node()
    await node.join("room", ANN)
    layer = get_channel_layer()
    layer_group = names.own_name("room")
    ours = read_zset(server, f"{lab.prefix}:group:{layer_group}")
    await layer.group_add(layer_group, "specific.other!channel")
    both = read_zset(server, f"{lab.prefix}:group:{layer_group}")
    assert list(ours) == [node.incarnation.channel]
    assert set(both) == {node.incarnation.channel, "specific.other!channel"}
    assert max(both.values()) - min(both.values()) < 60
    await layer.group_discard(layer_group, "specific.other!channel")
    expires = layers.keys_of(server, lab.prefix)[f"{lab.prefix}:group:{layer_group}"]
    assert 86000 < expires <= 86400
    await node.leave("room", ANN)
    assert not read_zset(server, f"{lab.prefix}:group:{layer_group}")


def read_zset(server, key):
    with server.client() as client:
        return dict(client.zrange(key, 0, -1, withscores=True))


@every_store
async def test_a_node_that_renewed_is_not_evicted(lab):
    one, two = await lab.node(), await lab.node()
    await two.join("room", BOB)
    await lab.expire(two)
    assert (await one.renew()).overdue == [two.id]
    await two.renew()
    assert await one.evict(two) == ([], [], True)
    assert facts(await two.leave("room", BOB)) == ("destroyed", 0, 0)


@every_store
async def test_nobody_is_evicted_who_is_not_known(lab):
    one, two = await lab.node(), await lab.node()
    await two.release()
    assert await one.evict(two) == ([], [], True)


@every_store
async def test_a_repeated_eviction_gives_the_first_answer(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.commit(*(Join("room", member(f"m{n}")) for n in range(6)))
    await lab.expire(dead)
    first = await one.evict(dead, limit=4, sequence=1)
    assert len(first.losses) == 4 and not first.done
    assert await one.evict(dead, limit=4, sequence=1) == first
    second = await one.evict(dead, limit=4, sequence=2)
    assert len(second.losses) == 2
    assert await one.evict(dead, limit=4, sequence=2) == second
    lost = {loss.member.id for loss in [*first.losses, *second.losses]}
    assert lost == {f"m{n}" for n in range(6)}


@every_store
async def test_evictions_and_commits_are_numbered_apart(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.join("room", BOB)
    answer = await one.join("room", ANN)
    await lab.expire(dead)
    assert [loss.member for loss in (await one.evict(dead, sequence=1)).losses] == [BOB]
    assert await one.commit(Join("room", ANN), sequence=1) == [answer]


@every_store
async def test_a_node_whose_eviction_has_begun_has_lost_its_lease(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.commit(*(Join("room", member(f"m{n}")) for n in range(6)))
    await lab.expire(dead)
    assert not (await one.evict(dead, limit=4)).done
    assert (await dead.renew()).state == "lost"
    with pytest.raises(LeaseLost):
        await dead.join("room", ANN)
    assert await lab.store.count("room") == 0
    assert (await one.renew()).overdue == [dead.id]
    await one.evict_all(dead)
    assert (await dead.renew()).state == "lost"
    with pytest.raises(LeaseLost):
        await dead.join("room", ANN)
    assert (await one.renew()).overdue == []


@every_store
async def test_a_dead_nodes_wish_to_be_told_does_not_count(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.join("room", BOB, told=True)
    assert (await one.join("room", ANN)).told
    await lab.expire(dead)
    [loss] = (await one.evict(dead)).losses
    assert not loss.answer.told
    assert not (await one.join("room", CAT)).told


@every_store
async def test_a_living_nodes_wish_to_be_told_of_losses_counts(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.join("room", BOB)
    await one.join("room", ANN, told=True)
    await lab.expire(dead)
    [loss] = (await one.evict(dead)).losses
    assert facts(loss.answer) == ("left", 1, 1)
    assert loss.answer.told


@server_stores
async def test_a_frozen_node_may_ask_what_its_last_commit_did(lab):
    dead, one = await lab.node(), await lab.node()
    answers = await dead.commit(Join("room", ANN), sequence=1)
    await lab.expire(dead)
    await one.evict_all(dead)
    assert await dead.commit(Join("room", ANN), sequence=1) == answers
    assert await lab.store.count("room") == 0
    dead.held.clear()


@every_store
async def test_an_evicted_node_has_lost_its_lease_even_if_the_others_are_gone(lab):
    dead, one = await lab.node(), await lab.node()
    await dead.join("room", ANN)
    await lab.expire(dead)
    await one.evict_all(dead)
    await one.release()
    assert (await dead.renew()).state == "lost"
    dead.held.clear()
    await lab.node()


@server_stores
async def test_a_node_that_released_with_members_is_evicted(lab):
    """The answer to its last leave was lost, as no memory store's can be."""
    dead, one = await lab.node(), await lab.node()
    await dead.join("room", ANN)
    await dead.release()
    assert (await one.renew()).overdue == [dead.id]
    [loss] = (await one.evict(dead)).losses
    assert (loss.member, facts(loss.answer)) == (ANN, ("destroyed", 0, 0))


# Lingering


async def pass_time(lab, seconds):
    if lab.clock:
        lab.clock.now += seconds


@every_store
async def test_who_lingers_counts_and_is_resumed_as_the_same_member(lab):
    one, two = await lab.node(), await lab.node()
    old = member("old", "Ann", {"n": 1}, joined_at=1_600_000_000.5)
    await one.join("room", old)
    await one.join("room", BOB, told=True)
    revision = (await one.update("room", BOB, told=True)).revision
    assert facts(await one.leave("room", old, grace=60)) == ("lingering", 2, 2)
    assert await lab.store.count("room") == 2
    assert await lab.store.membership_count() == 2
    assert await lab.store.users("room") == {"Ann", "user-b"}
    assert await lab.store.member("room", "old") == old
    assert sorted((await list_members(lab.store, "room"))[0]) == [BOB, old]
    assert await list_user(lab.store, "Ann") == [("room", "old")]
    assert facts(await one.leave("room", old)) == ("unchanged", 2, 2)
    new = member("new", "Ann", {"n": 2}, channel="another!channel")
    full = await two.join("room", new, limit=1)
    assert facts(full) == ("full", 2, 2)
    answer = await two.join("room", new, limit=1, told=True, resume=())
    assert facts(answer) == ("resumed", 2, 2)
    assert (answer.former, answer.owner) == (old, one.incarnation.channel)
    assert (answer.revision, answer.told) == (revision, True)
    resumed = new._replace(id="old", joined_at=old.joined_at)
    assert await lab.store.member("room", "old") == resumed
    assert await lab.store.member("room", "new") is None
    assert await list_user(lab.store, "Ann") == [("room", "old")]
    assert (await two.commit(Join("room", new), sequence=two.sequence)) == [answer]
    assert (await one.renew()).overdue == []
    assert facts(await two.update("room", resumed)) == ("updated", 2, 2)
    assert facts(await two.leave("room", resumed, told=True)) == ("left", 1, 1)
    assert (await two.join("room", new, resume=())).outcome == "joined"


@every_store
async def test_which_membership_is_resumed(lab):
    """The one that is asked for, else the first; never one of another user."""
    one = await lab.node()
    tabs = [member(f"tab{n}", "Ann") for n in range(3)]
    for tab in tabs:
        await one.join("room", tab)
        await one.leave("room", tab, grace=60)
    assert (await one.join("room", CAT, resume=())).outcome == "joined"
    assert (await one.join("room", member("n"), resume=())).outcome == "joined"
    assert (await one.join("other", member("1", "Ann"), resume=())).former is None
    former = [
        (await one.join("room", member(f"new{n}", "Ann"), resume=resume)).former
        for n, resume in enumerate([("?", "tab2"), (), ("tab2",), ("tab1",)])
    ]
    assert former == [tabs[2], tabs[0], tabs[1], None]
    assert await lab.store.count("room") == 6


@every_store
async def test_a_connection_goes_on_with_what_another_node_has(lab):
    """At once and without a change, however that node is; which hears of it once."""
    one, two = await lab.node(), await lab.node()
    old = member("old", "Ann", {"n": 1}, joined_at=1_600_000_000.5)
    await one.join("room", BOB, told=True)
    await one.join("room", old, told=True)
    await one.join("alone", old)
    before = await lab.store.summaries(0, ["room", "alone"])
    new = member("new", "Ann", {"n": 2}, channel="another!channel")
    answers = await two.commit(
        Join("room", new, 1, True, ("?", "old")),
        Join("alone", new, 1, False, ("old",)),
    )
    assert [facts(one) for one in answers] == [("resumed", 2, 2), ("resumed", 1, 1)]
    assert [one.former for one in answers] == [old, old]
    assert {one.owner for one in answers} == {one.incarnation.channel}
    assert answers[0].told and answers[0].revision == before[0].revision
    assert await lab.store.summaries(0, ["room", "alone"]) == before
    resumed = new._replace(id="old", joined_at=old.joined_at)
    assert await lab.store.member("room", "old") == resumed
    assert sorted((await list_members(lab.store, "room"))[0]) == [BOB, resumed]
    places = [("alone", "old"), ("room", "old")]
    assert sorted(await list_user(lab.store, "Ann")) == places
    # It does not know yet, and nothing seems to be lost.
    for holdings in (
        Holdings(one.sequence, 3, {"room": (2, "user-b")}),
        Holdings(one.sequence, 3, {"alone": (1, "whose user may be gone")}),
    ):
        renewal = await one.renew(holdings=holdings)
        assert (renewal.state, sorted(renewal.taken)) == ("alive", places)
    assert facts(await one.update("room", old)) == ("taken", 2, 2)
    assert facts(await one.leave("alone", old, grace=60)) == ("taken", 1, 1)
    holdings = Holdings(one.sequence, 1, {"room": (1, "user-b")})
    renewal = await one.renew(holdings=holdings)
    assert (renewal.state, list(renewal.taken)) == ("alive", [])
    assert facts(await one.leave("room", old)) == ("unchanged", 2, 2)
    holdings = Holdings(two.sequence, 2, {"room": (1, "Ann")})
    assert (await two.renew(holdings=holdings)).state == "alive"
    assert facts(await two.leave("room", resumed, told=True)) == ("left", 1, 1)
    assert facts(await two.leave("alone", resumed)) == ("destroyed", 0, 0)
    assert facts(await one.leave("room", BOB, told=True)) == ("destroyed", 0, 0)
    one.held.clear()


@every_store
async def test_nobody_goes_on_with_what_the_node_has_yet_to_hear_was_taken(lab):
    """Its former connection there would be another one of the same id."""
    one, two = await lab.node(), await lab.node()
    old, tab = member("old", "Ann"), member("tab", "Ann")
    await one.join("room", old)
    assert (await two.join("room", member("new", "Ann"), resume=("old",))).former == old
    await two.leave("room", old, grace=60)
    await two.join("room", tab)
    await two.leave("room", tab, grace=60)
    assert (await one.join("room", member("1", "Ann"), resume=())).former == tab
    for id, resume in (("2", ()), ("3", ("old",))):
        answer = await one.join("room", member(id, "Ann"), resume=resume)
        assert (answer.outcome, answer.former) == ("joined", None)
    renewal = await one.renew(holdings=Holdings(one.sequence, 4, {}))
    assert (renewal.state, list(renewal.taken)) == ("alive", [("room", "old")])
    assert facts(await one.leave("room", old, grace=60)) == ("taken", 4, 1)
    renewal = await one.renew(holdings=Holdings(one.sequence, 3, {}))
    assert (renewal.state, list(renewal.taken)) == ("alive", [])
    answer = await one.join("room", member("4", "Ann"), resume=())
    assert (answer.outcome, answer.former.id) == ("resumed", "old")


@every_store
async def test_a_node_asks_whether_a_member_is_still_its_own(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN, told=True)
    await one.join("room", BOB, told=True)
    before = await lab.store.summaries(0, ["room"])
    assert facts(await one.confirm("room", ANN)) == ("confirmed", 2, 2)
    assert facts(await two.confirm("room", ANN)) == ("unchanged", 2, 2)
    assert facts(await one.confirm("nowhere", ANN)) == ("unchanged", 0, 0)
    await two.join("room", member("new", ANN.user_id), resume=(ANN.id,))
    assert facts(await one.confirm("room", ANN)) == ("taken", 2, 2)
    assert facts(await one.confirm("room", ANN)) == ("unchanged", 2, 2)
    assert facts(await two.confirm("room", ANN)) == ("confirmed", 2, 2)
    assert await lab.store.summaries(0, ["room"]) == before
    one.held.pop(("room", ANN.id))


@every_store
async def test_only_ones_own_is_taken_over(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", member("old", "Ann"))
    await one.join("room", member("nobody"))
    for id, user, resume in (
        ("1", "Bob", "old"),
        ("2", None, "old"),
        ("3", None, "nobody"),
        ("4", "Ann", "nobody"),
        ("5", "Ann", "new"),
    ):
        answer = await two.join("room", member(id, user), resume=(resume,))
        assert (answer.outcome, answer.former) == ("joined", None)
    assert await lab.store.count("room") == 7
    # Who is written back or joins again by its own id does not take it from others.
    again = await two.join("room", member("old", "Ann"), resume=("old",))
    assert facts(again) == ("elsewhere", 7, 2)
    assert (await one.leave("room", member("old", "Ann"))).outcome == "left"
    again = await two.join("room", member("old", "Ann"), resume=("old",))
    assert facts(again) == ("joined", 7, 2)


@every_store
async def test_taken_from_a_dead_node_before_it_is_evicted(lab):
    one, two, three = [await lab.node() for _ in range(3)]
    for each in (ANN, BOB):
        await one.join("room", each)
    await lab.expire(one)
    new = member("new", ANN.user_id)
    assert (await two.join("room", new, resume=(ANN.id,))).outcome == "resumed"
    losses = [loss for batch in await three.evict_all(one) for loss in batch.losses]
    assert [loss.member for loss in losses] == [BOB]
    # Back from the dead, under another name, as that node's writer does it.
    four = await lab.node()
    assert (await four.join("room", ANN, resume=(ANN.id,))).outcome == "elsewhere"
    assert await lab.store.count("room") == 1
    back = member("back", ANN.user_id)
    assert (await four.join("room", back, resume=(ANN.id,))).outcome == "resumed"
    kept = back._replace(id=ANN.id, joined_at=ANN.joined_at)
    assert await lab.store.member("room", ANN.id) == kept
    one.held.clear()
    two.held.clear()


@every_store
async def test_left_and_gone_on_with_in_one_commit(lab):
    """As where the former connection is in the process of the new one."""
    one = await lab.node()
    await one.commit(Join("room", ANN, told=True), Join("room", BOB, told=True))
    new = member("new", ANN.user_id)
    back = Join("room", new, told=True, resume=(ANN.id,))
    leave = Leave("room", ANN, told=True, grace=60)
    left, resumed = await one.commit(leave, back)
    assert (facts(left), facts(resumed)) == (("lingering", 2, 2), ("resumed", 2, 2))
    assert resumed.former.id == ANN.id
    kept = new._replace(id=ANN.id, joined_at=ANN.joined_at)
    assert await lab.store.member("room", ANN.id) == kept
    assert (await one.leave("room", BOB, told=True)).told
    assert facts(await one.leave("room", kept, told=True)) == ("destroyed", 0, 0)


@every_store
async def test_a_grace_ends_once_for_all_nodes(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", BOB, told=True)
    people = [member(f"m{n}", f"u{n % 3}", {"n": n}) for n in range(9)]
    await one.commit(*(Join("room", each) for each in people))
    await one.commit(*(Leave("room", each, False, 0.2) for each in people[:8]))
    await one.leave("room", people[8], grace=3600)
    revision = (await lab.store.summaries(0, ["room"]))[0].revision
    await pass_time(lab, 0.2)
    batches = [await two.end_graces(limit=3)]
    again = await lab.store.evict(0, two.incarnation, 1, "~", LEASE, 1, 3)
    assert again == batches[0] and not again.done
    while not batches[-1].done:
        batches.append(await two.end_graces(limit=3))
    losses = [loss for batch in batches for loss in batch.losses]
    assert [len(batch.losses) for batch in batches] == [3, 3, 2]
    assert sorted(loss.member for loss in losses) == people[:8]
    assert {loss.answer.owner for loss in losses} == {one.incarnation.channel}
    assert [loss.answer.count for loss in losses] == [*range(9, 1, -1)]
    chain = [loss.answer.revision for loss in losses]
    assert [loss.answer.previous for loss in losses] == [revision, *chain[:-1]]
    assert [loss.answer.connections for loss in losses] == [2, 2, 2, 1, 1, 1, 0, 0]
    assert (await one.renew()).overdue == []
    assert await lab.store.count("room") == 2
    await one.join("room", member("back", "u2"), resume=())


@every_store
async def test_the_last_one_who_lingers_destroys_the_group(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN, told=True)
    await one.leave("room", ANN, told=True, grace=0.1)
    await one.release()
    await pass_time(lab, 0.1)
    [loss] = (await two.end_graces()).losses
    assert (loss.member, facts(loss.answer)) == (ANN, ("destroyed", 0, 0))
    assert (loss.answer.connections, loss.answer.told) == (0, False)
    assert loss.answer.owner == ""
    assert (await two.join("room", ANN)).outcome == "created"


@every_store
async def test_who_lingers_outlives_its_node_and_readings_leave_out_the_late(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN)
    await one.join("room", BOB)
    await one.leave("room", ANN, grace=0.3)
    await lab.expire(one)
    losses = [loss for batch in await two.evict_all(one) for loss in batch.losses]
    assert [loss.member for loss in losses] == [BOB]
    await pass_time(lab, 0.3)

    async def count():
        return await lab.store.count("room"), await lab.store.membership_count()

    await aeventually(count, equals=(0, 0))
    assert await lab.store.user_count("room") == await lab.store.group_count() == 0
    assert (await list_groups(lab.store))[0] == []
    assert await list_user(lab.store, "user-a") == []
    [loss] = (await two.end_graces()).losses
    assert loss.member == ANN


@server_stores
async def test_who_lingers_is_written_back_to_an_emptied_store(lab):
    """By the node that had it, unless it was resumed elsewhere, in either order."""
    one, two = await lab.node(), await lab.node()
    ann, bob, cat = (member(id, f"user {id}") for id in ("a", "b", "c"))
    for each in (ann, bob, cat):
        await one.join("room", each)
        await one.leave("room", each, grace=60)
    for id in ("b", "c"):
        await two.join("room", member(f"new{id}", f"user {id}"), resume=())
    lab.empty()
    for node in (one, two):
        assert (await node.renew()).state == "emptied"
        await node.register()

    async def restore(node, who, lingers):
        join = Join("room", who, None, False, (who.id,))
        leave = [Leave("room", who, False, 60)] if lingers else []
        return outcomes(await node.commit(join, *leave, restore=True))

    assert await restore(two, bob, False) == ["created"]
    assert await restore(one, ann, True) == ["joined", "lingering"]
    assert await restore(one, bob, True) == ["elsewhere", "unchanged"]
    assert await restore(one, cat, True) == ["joined", "lingering"]
    assert await restore(two, cat, False) == ["resumed"]
    await lab.rebuilt()
    assert await lab.store.count("room") == 3
    answer = await two.join("room", member("newa", "user a"), resume=())
    assert answer.former.id == "a"
    assert (await two.join("room", member("x", "user b"), resume=())).former is None
    rooms = {"room": (4, "user a")}
    await two.renew(holdings=Holdings(two.sequence, 4, rooms))


# Users


async def list_user(store, user):
    """Return all pages of a user's memberships."""
    places, cursor = await store.user_members(user, None)
    while cursor is not None:
        page, cursor = await store.user_members(user, cursor)
        places = places + page
    return sorted((group, one.id) for group, one in places)


@every_store
async def test_the_memberships_of_a_user_are_found(lab):
    one, two = await lab.node(), await lab.node()
    first, second = member("1", "Ann: 5", {"a": 1}), member("22", "Ann: 5")
    await one.join("room", first)
    await one.join("1:room: a", first)
    await two.join("room", second)
    await two.join("room", member("3", "Bob"))
    await two.join("room", member("4"))
    places = [("1:room: a", "1"), ("room", "1"), ("room", "22")]
    assert await list_user(lab.store, "Ann: 5") == places
    assert ("room", first) in (await lab.store.user_members("Ann: 5", None))[0]
    assert await list_user(lab.store, "Bob") == [("room", "3")]
    assert await list_user(lab.store, "nobody") == []
    await one.leave("room", first)
    places.remove(("room", "1"))
    assert await list_user(lab.store, "Ann: 5") == places
    await lab.expire(one)
    assert await list_user(lab.store, "Ann: 5") == [("room", "22")]
    await two.evict_all(one)
    assert await list_user(lab.store, "Ann: 5") == [("room", "22")]


@every_store
async def test_the_memberships_of_a_user_come_in_pages(lab):
    one = await lab.node()
    for start in range(0, 1200, 100):
        numbers = range(start, start + 100)
        await one.commit(*(Join(f"g{n}", member("1", "Ann")) for n in numbers))
    assert len(await list_user(lab.store, "Ann")) == 1200


# A store that lost everything


@server_stores
async def test_an_emptied_store_takes_only_what_is_written_back(lab):
    one, two = await lab.node(), await lab.node()
    before = (await one.join("room", ANN)).revision
    await two.join("room", BOB)
    lab.empty()
    assert [(await node.renew()).state for node in (one, two)] == ["emptied"] * 2
    old = one.epoch
    assert await one.register() == await two.register() != old
    with pytest.raises(StoreRebuilding):
        await one.join("room", CAT)
    with pytest.raises(StoreRebuilding):
        await lab.store.summaries(0, ["room"])
    restored = await one.commit(Join("room", ANN), sequence=10, restore=True)
    restored += await two.commit(Join("room", BOB), sequence=10, restore=True)
    assert [facts(answer) for answer in restored] == [
        ("created", 1, 1),
        ("joined", 2, 2),
    ]
    assert restored[0].revision > before

    async def join():
        return await one.join("room", CAT)

    joined = await aeventually(join, ignoring=(StoreRebuilding,))
    assert facts(joined) == ("joined", 3, 3)
    assert {one.id for one in (await list_members(lab.store, "room"))[0]} == set("abc")
    assert [(await node.renew()).state for node in (one, two)] == ["alive"] * 2


@known_stores
async def test_who_comes_to_an_emptied_store_first_waits_for_the_others(lab):
    one = await lab.node()
    await one.join("room", ANN)
    lab.empty()
    two = await lab.node()
    with pytest.raises(StoreRebuilding):
        await two.join("room", BOB)
    assert (await one.renew()).state == "emptied"
    one.held.clear()


@redis_stores
async def test_nobody_commits_to_a_restarted_server_before_all_have_looked(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN)
    older = lab.dump()
    await two.join("room", BOB)
    await lab.restart(older)
    with pytest.raises(LeaseLost):
        await one.join("room", CAT)
    assert (await one.renew(holdings=Holdings(1, 1))).state == "alive"
    with pytest.raises(StoreRebuilding):
        await one.join("room", CAT)
    assert (await two.renew(holdings=Holdings(1, 1))).state == "emptied"
    assert (await one.renew(holdings=Holdings(1, 1))).state == "emptied"
    for node, who in ((one, ANN), (two, BOB)):
        await aeventually(node.register, ignoring=(StoreRebuilding,))
        await node.commit(Join("room", who), restore=True)
    await lab.rebuilt()
    assert facts(await one.join("room", CAT)) == ("joined", 3, 3)


@redis_stores
async def test_a_restarted_server_with_all_its_data_is_used_at_once(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN)
    await two.join("room", BOB)
    await lab.restart(lab.dump())
    for node in (one, two):
        assert (await node.renew(holdings=Holdings(1, 1))).state == "alive"
    assert facts(await one.join("room", CAT)) == ("joined", 3, 3)


@redis_stores
async def test_who_comes_to_a_restarted_server_first_waits_for_the_others(lab):
    one = await lab.node()
    await one.join("room", ANN)
    await lab.restart(lab.dump())
    two = await lab.node()
    with pytest.raises(StoreRebuilding):
        await two.join("room", BOB)
    await one.renew()
    assert facts(await two.join("room", BOB)) == ("joined", 2, 2)


@server_stores
async def test_members_are_written_back_whose_index_was_lost(lab):
    """Without it, what a node had is not found when void data is wiped."""
    one, two = await lab.node(), await lab.node()
    held = [(one, "room", ANN), (two, "room", BOB), (one, "alone", ANN)]
    for node, room, who in held:
        await node.join(room, who, told=True)
    lab.lose_index(one)
    with_ann, with_bob = {"room": (1, "user-a")}, {"room": (1, "user-b")}
    assert (await one.renew(holdings=Holdings(2, 2, with_ann))).state == "emptied"
    assert (await two.renew(holdings=Holdings(1, 1, with_bob))).state == "emptied"
    for node in (one, two):
        await aeventually(node.register, ignoring=(StoreRebuilding,))
    for node, room, who in held:
        await node.commit(Join(room, who, None, True), restore=True)
    await lab.rebuilt()
    rooms = {"room": (1, "user-a"), "alone": (1, "user-a")}
    assert (await one.renew(holdings=Holdings(4, 2, rooms))).state == "alive"
    assert (await two.renew(holdings=Holdings(2, 1, with_bob))).state == "alive"
    assert facts(await two.join("alone", ANN)) == ("joined", 2, 1)
    assert facts(await one.leave("alone", ANN, told=True)) == ("left", 1, 1)


@redis_stores
@pytest.mark.parametrize("harm", ["lost", "another's"])
async def test_lost_places_of_a_user_are_lost_data(lab, harm):
    one = await lab.node()
    await one.join("room", ANN)
    holdings = Holdings(1, 1, {"room": (1, ANN.user_id)}, ids={"room": ANN.id})
    assert (await one.renew(holdings=holdings)).state == "alive"
    with lab.server.client() as client:
        [key] = client.scan_iter(f"{lab.prefix}:groups:user[:#]*")
        if harm == "lost":
            client.delete(key)
        else:
            [place] = client.hkeys(key)
            client.hset(key, place, "nobody")
    assert (await one.renew(holdings=holdings)).state == "emptied"
    await aeventually(one.register, ignoring=(StoreRebuilding,))
    await one.commit(Join("room", ANN), restore=True)
    await lab.rebuilt()
    assert await list_user(lab.store, ANN.user_id) == [("room", ANN.id)]


@redis_stores
async def test_what_was_taken_unheard_and_is_lost_is_lost_data(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN)
    answer = await two.join("room", member("new", ANN.user_id), resume=(ANN.id,))
    assert answer.outcome == "resumed"
    holdings = Holdings(1, 1, {"room": (1, ANN.user_id)}, ids={"room": ANN.id})
    assert (await one.renew(holdings=holdings)).state == "alive"
    with lab.server.client() as client:
        assert client.delete(f"{lab.prefix}:groups:taken:{one.id}")
    assert (await one.renew(holdings=holdings)).state == "emptied"
    one.held.clear()
    for node in one, two:
        await aeventually(node.register, ignoring=(StoreRebuilding,))
    await two.commit(Join("room", ANN), restore=True)
    await lab.rebuilt()


@server_stores
async def test_a_lease_that_nobody_evicted_is_lost_data(lab):
    one, two = await lab.node(), await lab.node()
    await one.join("room", ANN)
    await two.join("room", BOB)
    lab.lose_lease(one)
    assert (await one.renew()).state == "emptied"
    assert (await two.renew()).state == "emptied"
    assert (await two.renew()).overdue == []
    for node, who in ((one, ANN), (two, BOB)):
        await aeventually(node.register, ignoring=(StoreRebuilding,))
        node.held.clear()
        await node.commit(Join("room", who), restore=True)
    assert await lab.store.count("room") == 2
    await lab.rebuilt()


@redis_stores
async def test_scripts_are_loaded_again_after_a_script_flush(lab):
    node = await lab.node()
    await node.join("room", ANN)
    with lab.server.client() as client:
        client.script_flush()
    assert await lab.store.count("room") == 1
    assert facts(await node.join("room", BOB)) == ("joined", 2, 2)


# Several hosts


@pytest.mark.parametrize("backend", [layers.CORE, layers.PUBSUB])
async def test_groups_are_spread_over_the_hosts(
    backend, seasoned_redis, second_redis, prefix, settings, monkeypatch
):
    urls = [seasoned_redis.url, second_redis.url]
    settings.CHANNEL_LAYERS = layers.redis_layer(backend, urls, prefix)
    store = make_store("default", get_channel_layer())
    lab = RedisLab(store, seasoned_redis, prefix)
    store.attach()
    nodes = [await lab.node(shard=shard) for shard in (0, 1)]
    wanted = {f"room{n}": 1 + n % 3 for n in range(60)}
    for name, count in wanted.items():
        node = nodes[store.shard(name)]
        await node.commit(*(Join(name, member(f"m{n}")) for n in range(count)))
    groups, _ = await list_groups(store)
    assert dict(groups) == wanted and len(groups) == len(wanted)
    monkeypatch.setattr(redis_store, "PAGE", 7)
    counts = [count for _, count in (await list_groups(store))[0]]
    assert counts == sorted(wanted.values(), reverse=True)
    assert dict((await list_groups(store, "room1"))[0]).keys() == {
        name for name in wanted if name.startswith("room1")
    }
    assert await store.group_count() == 60
    assert await store.membership_count() == sum(wanted.values())
    assert len(await store.channels()) == 2
    assert {state[:2] for state in await store.nodes()} == {(0, "node0"), (1, "node1")}
    assert {store.shard(name) for name in wanted} == {0, 1}
    assert [await store.count(name) for name in wanted] == list(wanted.values())
    await lab.leave_nothing()
    assert not layers.keys_of(second_redis, prefix)
    await lab.close()

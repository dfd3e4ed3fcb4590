"""How members are written to Redis, open and sealed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels_groups.stores.base import Confirm, Join, Leave, Member, Update
from channels_groups.stores.records import Records

KEYS = [None, ["a secret"], [b"bytes", "another"]]

MEMBERS = [
    Member("a", "specific.x!" + "0123456789abcdef" * 2, None, {}, 0.0),
    Member("b", "specific.inmemory!abcDEF", "ann", {}, 1_700_000_000.123456),
    Member("c", "no-mark", "", {"a": 1}, 1.5),
    Member("d", "x!" + "0123456789ABCDEF" * 2, "12:34:", {"ü": ["☃", None]}, 2.0),
    Member("e", "x!" + "0" * 31 + "g", "\x00:\n", {"n": 2**80, "s": "\ud800"}, 3.0),
    Member("f", "!" + "0" * 32, "Zoë ☃ " * 100, {"x": "y" * 8000}, 4.0),
    Member("g", "a!b!" + "f" * 32, "0", {"float": 1e300, "t": True}, 5.0),
    Member("h", f"specific.{'0f' * 16}!{'a1' * 16}", "ann", {"a": 1}, 6.0),
    Member("i", f"specific.{'0f' * 16}!{'a1' * 16}\n", "ann", {}, 7.0),
    Member("j", "asgispecific." + "0f" * 16, "ann", {}, 8.0),
]


def pack(records, member):
    kind, group, id, user, told, record, *rest = records.pack(Join("room", member))
    assert (kind, group, id, told) == ("join", "room", member.id, 0)
    assert rest == [-1, False]
    return record, user


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.id)
def test_a_member_comes_out_as_it_went_in(keys, member):
    records = Records(keys)
    record, user = pack(records, member)
    assert records.unpack(member.id.encode(), record) == member
    if member.user_id is None:
        assert user is False
    else:
        assert records.open_user(user) == member.user_id


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KEYS),
    st.text(min_size=1).filter(lambda text: text.isascii()),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
    st.floats(0, 4e9),
)
def test_any_member_comes_out_as_it_went_in(keys, channel, user, info, joined_at):
    records = Records(keys)
    member = Member("id", channel, user, info, joined_at)
    record, _ = pack(records, member)
    assert records.unpack(b"id", record) == member


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("member", MEMBERS[1:], ids=lambda member: member.id)
def test_the_scripts_find_the_user_in_a_record(keys, member):
    """As user_of() in lua/common.lua does."""
    record, user = pack(Records(keys), member)
    digits, _, rest = record.partition(b":")
    assert digits.isdigit()
    assert rest[: int(digits)] == user


def test_a_record_without_a_user_begins_with_a_colon():
    for keys in KEYS:
        record, _ = pack(Records(keys), MEMBERS[0])
        assert record.startswith(b":")


def test_limits_wishes_and_leaves():
    records = Records(None)
    member = MEMBERS[1]
    kind, *_, told, record, limit, _ = records.pack(Join("room", member, 5, True))
    assert (kind, told, limit) == ("join", 1, 5)
    assert records.pack(Join("room", member, 0, resume=("a",)))[-2:] == [0, ("a",)]
    assert records.pack(Update("room", member, True)) == [
        *("update", "room", "b", b"ann", 1, record)
    ]
    assert records.pack(Leave("room", member, True, 2.5)) == [
        *("leave", "room", "b", b"ann", 1, 2.5)
    ]
    assert records.pack(Confirm("room", member)) == ["confirm", "room", "b", b"ann", 0]


def test_with_keys_nothing_is_readable():
    member = Member("id", "specific.channel", "ann-the-user", {"colour": "red"}, 1.0)
    record, user = pack(Records(["a secret"]), member)
    for secret in (b"ann", b"colour", b"red", b"specific"):
        assert secret not in record and secret not in user
    open_record, open_user = pack(Records(None), member)
    assert open_user == b"ann-the-user"
    assert b"red" in open_record


def test_equal_users_have_equal_seals_so_that_they_can_be_counted():
    records = Records(["a secret"])
    _, first = pack(records, Member("1", "one", "ann", {}, 1.0))
    _, second = pack(records, Member("2", "two", "ann", {"x": 1}, 2.0))
    _, other = pack(records, Member("3", "three", "bob", {}, 3.0))
    assert first == second != other


def test_old_keys_open_and_the_first_seals():
    member = MEMBERS[3]
    record, user = pack(Records(["old"]), member)
    turned = Records(["new", "old"])
    assert turned.unpack(b"d", record) == member
    assert turned.open_user(user) == member.user_id
    again, _ = pack(turned, member)
    assert Records(["new"]).unpack(b"d", again) == member


def test_a_wrong_key_says_so():
    record, user = pack(Records(["a secret"]), MEMBERS[1])
    stranger = Records(["another"])
    with pytest.raises(ValueError, match="symmetric_encryption_keys"):
        stranger.unpack(b"b", record)
    with pytest.raises(ValueError, match="symmetric_encryption_keys"):
        stranger.open_user(user)


def test_the_channel_names_of_channels_redis_are_halved():
    long = Member("id", "specific." + "0" * 32 + "!" + "1" * 32, None, {}, 1.0)
    short = Member("id", "specific." + "0" * 32 + "!" + "x" * 32, None, {}, 1.0)
    saved = len(pack(Records(None), short)[0]) - len(pack(Records(None), long)[0])
    assert saved > 10

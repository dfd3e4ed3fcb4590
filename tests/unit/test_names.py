"""Names of groups, and that no two meet in the channel layer."""

import random
import sys

import pytest
from channels.layers import BaseChannelLayer
from hypothesis import given, settings
from hypothesis import strategies as st

from channels_groups import names

layer = BaseChannelLayer()

#: Alphabets of every kind: what layers take, what they do not, and all of Unicode.
ALPHABETS = [
    "ab",
    "a-",
    "a.",
    "aA",
    "a\u0301\u00e1",
    "0123456789abcdef.",
    "groups.",
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
    " \t\n\r\x00\x7f\u00a0\u2028\ufeff",
    "٠١٢٣٤٥٦٧٨٩१२३",
    "äöüßÄÖÜẞéèêñçåø",
    "日本語漢字かなカナ",
    "👍🏳️‍🌈👩‍👩‍👧",
    "!@#$%^&*()+=[]{}|;:'\",<>/?\\`~",
]


def generate(count, seed=20):
    """Return so many different names of every kind and length."""
    chance = random.Random(seed)
    found = set()
    while len(found) < count:
        alphabet = chance.choice([*ALPHABETS, None])
        length = chance.choice([1, 2, 3, 8, 40, 41, 81, 82, 91, 92, 93, 99, 100, 1000])
        name = "".join(character(chance, alphabet) for _ in range(length))
        variants = [name, f"groups.{name}", names.plain_name(name)]
        variants += [names.own_name(name), name.lower(), name + "."]
        found.update(one for one in variants if 0 < len(one) <= names.MAX_LENGTH)
    return sorted(found)[:count]


def character(chance, alphabet):
    if alphabet:
        return chance.choice(alphabet)
    while True:
        point = chance.randrange(sys.maxunicode + 1)
        if not 0xD800 <= point < 0xE000:
            return chance.choice([chr(point), "a"])


def test_ten_thousand_names_never_meet():
    generated = generate(10_000)
    owner = {}
    for name in generated:
        assert names.check_name(name) == name
        plain, own = names.plain_name(name), names.own_name(name)
        assert layer.require_valid_group_name(plain)
        assert layer.require_valid_group_name(own)
        for mapped in (plain, own):
            assert owner.setdefault(mapped, name) == name
    assert len(owner) == 20_000


any_name = st.text(min_size=1, max_size=120).filter(
    lambda name: not any(0xD800 <= ord(char) < 0xE000 for char in name)
)


@settings(max_examples=500, deadline=None)
@given(any_name, any_name)
def test_any_two_names_never_meet(one, two):
    if one == two:
        return
    mapped = {one: mapped_names(one), two: mapped_names(two)}
    assert mapped[one].isdisjoint(mapped[two])


@settings(max_examples=300, deadline=None)
@given(any_name)
def test_what_a_name_is_mapped_to_belongs_to_it_alone(name):
    """Who names a group like another one's mapped name does not get into it."""
    for guess in mapped_names(name) - {name}:
        assert mapped_names(guess).isdisjoint(mapped_names(name))


def mapped_names(name):
    return {names.plain_name(name), names.own_name(name)}


@pytest.mark.parametrize("name", ["room", "a-b_c.D", "x" * 99, "0", "..", "groups"])
def test_a_name_that_the_layer_accepts_is_used_as_it_is(name):
    assert names.plain_name(name) == name


@pytest.mark.parametrize("name", ["x" * 100, "a b", "ä", "groups.x", "groups.", "a!b"])
def test_any_other_name_is_mapped(name):
    plain = names.plain_name(name)
    assert plain != name
    assert not plain.startswith("groups.")
    assert names.plain_name(plain) != plain


def test_own_names_begin_with_groups_and_plain_ones_never():
    for name in generate(500):
        assert names.own_name(name).startswith("groups.")
        assert len(names.own_name(name)) <= names.MAX_OWN_LENGTH
        assert not names.plain_name(name).startswith("groups.")


def test_a_mapped_name_can_be_read():
    assert names.plain_name("Room: Zürich").startswith("Room-Z-rich..")


@pytest.mark.parametrize(
    "name, error, text",
    [
        ("", ValueError, "empty"),
        ("x" * 1001, ValueError, "1,001"),
        ("a\ud800b", ValueError, "Unicode"),
        ("\udfff", ValueError, "Unicode"),
        (None, TypeError, "NoneType"),
        (b"room", TypeError, "bytes"),
        (5, TypeError, "int"),
        (["room"], TypeError, "list"),
    ],
)
def test_what_is_no_name(name, error, text):
    with pytest.raises(error, match=text):
        names.check_name(name)


@pytest.mark.parametrize("name", ["x", "x" * 1000, "👍" * 1000, "\x00", " ", "\n"])
def test_what_is_a_name(name):
    assert names.check_name(name) == name

"""Tables fit the terminal, and show whatever stands in them harmlessly."""

import pytest

from channels_groups.management.table import (
    Column,
    fit,
    printable,
    render,
    width_of,
)

COLUMNS = [
    Column("Group", least=6),
    Column("Members", right=True),
    Column("Info", least=4, optional=True),
]
ROWS = [("Lobby", "1,234", "something long"), ("東京の部屋", "5", "x")]


def test_a_table_is_as_wide_as_it_is():
    assert list(render(COLUMNS, ROWS, None)) == [
        "Group       Members  Info",
        "Lobby         1,234  something long",
        "東京の部屋        5  x",
    ]


@pytest.mark.parametrize("width", range(15, 45))
def test_a_table_fits(width):
    lines = list(render(COLUMNS, ROWS, width))
    assert max(map(width_of, lines)) <= width
    assert lines[1].split()[:2] == ["Lobby", "1,234"]
    assert ("Info" in lines[0]) == (width >= 6 + 2 + 7 + 2 + 4)


def test_what_is_left_out_leaves_its_room_to_others():
    lines = list(render(COLUMNS, [("a longer name", "1", "something")], 20))
    assert lines == ["Group        Members", "a longer n…        1"]


def test_marks_that_take_no_column_are_not_counted():
    assert width_of("नमस्ते") == 4
    assert width_of("กี่") == 1
    assert width_of("e\u0301") == width_of("1\u20dd") == 1


def test_a_table_without_rows_has_titles():
    assert list(render(COLUMNS, [], 80)) == ["Group  Members  Info"]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain text", "plain text"),
        ("日本語 ñ", "日本語 ñ"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_would_harm_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text, room, cut",
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_text_is_cut_by_columns_of_the_terminal(text, room, cut):
    assert fit(text, room) == cut

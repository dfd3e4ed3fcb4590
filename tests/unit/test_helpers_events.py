"""The oracle passes what is right and catches what is broken."""

import pytest

from tests.helpers.events import memberships, violations


def created(revision, **fields):
    return line("created", revision, **fields)


def join(revision, id, count, **fields):
    fields.setdefault("user_count", count)
    return line("join", revision, id=id, count=count, **fields)


def leave(revision, id, count, reason="left", **fields):
    fields.setdefault("user_count", count)
    return line("leave", revision, id=id, count=count, reason=reason, **fields)


def destroyed(revision, **fields):
    return line("destroyed", revision, **fields)


def line(event, revision, *, group="room", pid=1, **fields):
    return {"event": event, "group": group, "revision": revision, "pid": pid, **fields}


def life(group="room", pid=1, start=1):
    """Return the whole life of a group with two members, a and b."""
    place = {"group": group, "pid": pid}
    return [
        created(start, **place),
        join(start, "a", 1, **place),
        join(start + 4, "b", 2, **place),
        leave(start + 5, "a", 1, **place),
        leave(start + 9, "b", 0, **place),
        destroyed(start + 9, **place),
    ]


def test_nothing_is_fine():
    assert violations([], ended=True) == []


def test_lives_of_groups_over_several_processes_are_fine():
    one, two = life(), life("other", start=3)
    again = life(pid=2, start=100)
    later = [{**line, "pid": 3} for line in one[3:]]
    assert violations([*again, *later, *two, *one[:3]], ended=True) == []


def test_a_member_that_was_lost_may_come_back():
    lines = life()
    lines[3:] = [leave(6, "a", 1, "lost", pid=2), join(7, "a", 2)]
    assert violations(lines) == []


def test_what_goes_on_is_only_wrong_when_it_should_have_ended():
    assert violations(life()[:3]) == []
    assert violations(life()[:3], ended=True) == ["'room' never left: a, b"]


def without(*numbers):
    return [line for number, line in enumerate(life()) if number not in numbers]


def replaced(number, **fields):
    lines = life()
    lines[number] = {**lines[number], **fields}
    return lines


def with_more(number, *more):
    return [*life()[:number], *more, *life()[number:]]


BROKEN = {
    "missing created": (without(0), "joined before it was created"),
    "double created": (
        with_more(3, created(6), join(6, "c", 3)),
        "created while it was there",
    ),
    "created without a join": (without(1), "created without a join at revision 1"),
    "missing join": (without(2), "left by somebody who is not in it"),
    "double join": (with_more(3, join(6, "a", 2)), "joined twice"),
    "the same join in two processes": (
        with_more(3, join(5, "b", 2, pid=2)),
        "join and join share a revision",
    ),
    "missing leave": (without(3), "count 0 instead of 1"),
    "double leave": (
        with_more(4, leave(7, "a", 1)),
        "left by somebody who is not in it at revision 7 (leave of a), process 1",
    ),
    "leave of a stranger": (
        with_more(3, leave(5.5, "x", 2)),
        "left by somebody who is not in it",
    ),
    "leave for an unknown reason": (replaced(3, reason="bored"), "reason 'bored'"),
    "missing destroyed": (without(5), "not destroyed by its last leave"),
    "missing destroyed before the next life": (
        [*without(5), *life(start=50)],
        "not destroyed by its last leave",
    ),
    "destroyed too early": (
        replaced(5, revision=6),
        "destroyed with 1 members at revision 6",
    ),
    "destroyed late": (replaced(5, revision=11), "not destroyed by its last leave"),
    "double destroyed": (
        [*life(), destroyed(11)],
        "destroyed when it was not there",
    ),
    "wrong count": (replaced(2, count=3), "count 3 instead of 2"),
    "more users than connections": (replaced(2, user_count=3), "user_count 3 of 2"),
    "revision going backwards": (
        [*life(start=50), *life(start=1)],
        "signalled after destroyed of revision 59",
    ),
    "a revision twice": (
        replaced(3, revision=5),
        "join and leave share a revision at revision 5",
    ),
    "destroyed before its leave": (
        [*life()[:4], life()[5], life()[4]],
        "leave of revision 10 signalled after destroyed of revision 10",
    ),
}


@pytest.mark.parametrize("lines, problem", BROKEN.values(), ids=BROKEN.keys())
def test_it_catches(lines, problem):
    found = violations(lines, ended=True)
    assert any(problem in violation for violation in found), found


def test_user_counts_are_exact_where_the_users_are_known():
    lines = life()[:3]
    assert violations(lines, users={"a": "ann", "b": "bob"}) == []
    (found,) = violations(lines, users={"a": "ann", "b": "ann"})
    assert "user_count 2, not 1" in found
    assert len(violations(lines, users={})) == 2


def test_memberships_tells_who_is_left():
    lines = [*life()[:4], *life("other"), *life("third", start=20)[:3]]
    assert memberships(lines) == {"room": {"b"}, "third": {"a", "b"}}

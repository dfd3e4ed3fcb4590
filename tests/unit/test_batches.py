"""How much one commit takes."""

import time

from channels_groups.stores.base import Join, Leave, Member
from channels_groups.writer import BATCH, batches


def member(id, user=None):
    return Member(id, "channel", user, {}, time.time())


def sizes(operations):
    return [len(batch) for batch in batches(operations)]


def test_a_room_for_all_costs_least():
    members = [member(str(number)) for number in range(2 * BATCH)]
    operations = [Join("room", one) for one in members]
    assert sizes(operations) == [BATCH - 2, BATCH - 2, 4]
    assert [one for batch in batches(operations) for one in batch] == operations


def test_users_and_rooms_of_their_own_cost_more():
    users = [member(str(number), f"user-{number}") for number in range(BATCH)]
    assert sizes([Join("room", one) for one in users])[0] == BATCH // 2 - 1
    assert sizes([Join(one.id, one) for one in users]) == [BATCH // 4] * 4


def test_a_join_and_its_leave_are_not_parted():
    operations = []
    for number in range(BATCH):
        user = member(str(number), f"user-{number}")
        operations += [Join("room", user, resume=(user.id,)), Leave("room", user, 1.0)]
    found = list(batches(operations))
    assert len(found) > 3
    for batch in found:
        assert isinstance(batch[0], Join) and isinstance(batch[-1], Leave)


def test_nothing_is_no_commit():
    assert sizes([]) == []

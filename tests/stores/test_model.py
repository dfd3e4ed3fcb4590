"""Every store against a model of a few lines, by random operations of several nodes.

Time is not waited for: a lease runs out when the test says so.
"""

import asyncio
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from channels_groups.stores.base import Join, LeaseLost, Leave, Update

from .conftest import DATABASE_KINDS, make_lab
from .lab import list_groups, list_members, member

GROUPS = ["red", "green", "größer 😀"]
USERS = [None, "ann", "bob"]
#: Names of connections, few enough to meet again.
CONNECTIONS = [f"connection{number}" for number in range(6)]

#: Seconds, more than any history takes.
GRACE = 600

#: Histories that are tried, for each sort of store.
EXAMPLES = {"memory": 100, "core": 25, "pubsub": 25, "database": 4}

groups = st.sampled_from(GROUPS)
operations = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "leave", "update", "linger", "resume"]),
        groups,
        st.sampled_from(CONNECTIONS),
        st.sampled_from([None, None, None, 1, 2, 3]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


class StoreModel(RuleBasedStateMachine):
    """What a store should be: for each node, its members; and whether it is alive.

    A connection is on one node, as in life: its name begins with the node's. One that
    has been let linger is over, and another one has its place.
    """

    nodes = Bundle("nodes")

    #: Set by the test.
    loop = make_lab = None

    def __init__(self):
        super().__init__()
        self.lab = self.make_lab()
        self.lab.store.lingers = True
        self.run(self.attach())
        #: node -> group -> connection -> the Join that made it a member
        self.members = defaultdict(lambda: defaultdict(dict))
        #: group -> connection -> the Join of who lingers
        self.lingering = defaultdict(dict)
        #: (node, group, connection) -> the id of its membership, if not its own
        self.resumed = {}
        #: (node, group, connection) -> how many have had its place
        self.generations = Counter()
        self.expired = set()
        #: Evicted, in part or in full, or released: a new identity is needed.
        self.evicted = set()
        self.released = set()
        self.last_commit = {}
        self.revisions = Counter()

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def attach(self):
        self.lab.store.attach()

    def teardown(self):
        async def end():
            for node in self.lab.nodes:
                await self.lab.store.release(0, node.incarnation)
            await self.lab.close()
            if self.lab.keeps_answers:
                self.lab.empty()

        self.run(end())

    # What may happen

    @initialize(target=nodes)
    def first_node(self):
        return self.run(self.lab.node())

    @precondition(lambda self: len(self.lab.nodes) < 5)
    @rule(target=nodes)
    def register(self):
        return self.run(self.lab.node())

    @rule(node=nodes, wanted=operations)
    def commit(self, node, wanted):
        """Carry out some joins and leaves; each answer is as the model has it."""
        if node in self.evicted:
            with pytest.raises(LeaseLost):
                self.run(node.commit(Join("red", member("late"))))
            node.sequence -= 1
            return
        # In one batch nobody leaves who joins in it, as the writer has it.
        places = {one[1:3]: one for one in wanted}
        done = [self.operation(node, *one) for one in places.values()]
        answers = self.run(node.commit(*done))
        assert len(answers) == len(done)
        for place, operation, answer in zip(places, done, answers):
            self.expect(node, operation, answer)
            self.follow(node, *place, operation, answer)
        self.last_commit[node] = done, answers

    @rule(node=nodes)
    def repeat_commit(self, node):
        """The answer was lost: the same one comes again, and nothing happens."""
        if node in self.last_commit:
            done, answers = self.last_commit[node]
            again = self.run(node.commit(*done, sequence=node.sequence))
            assert again == answers

    @rule(node=nodes)
    def renew(self, node):
        """A renewal revives who was not evicted yet, and names the others."""
        if node in self.released:
            return  # Nobody renews what it has given up.
        renewal = self.run(node.renew())
        if node in self.evicted:
            assert renewal.state == "lost"
        else:
            assert renewal.state == "alive"
            self.expired.discard(node)
        gone = {one.id for one in self.expired - {node}}
        assert gone == set(renewal.overdue) & {one.id for one in self.lab.nodes}

    @rule(node=nodes)
    def expire(self, node):
        """Its lease runs out."""
        if node not in self.evicted:
            self.lab.run_out(node)
            self.expired.add(node)

    @rule(node=nodes, dead=nodes, limit=st.integers(1, 5))
    def evict(self, node, dead, limit):
        """Take members out of a dead node, at most so many; repeat the call too."""
        if node is dead or node in self.evicted:
            return
        eviction = self.run(node.evict(dead, limit=limit))
        again = self.run(node.evict(dead, limit=limit, sequence=node.evictions))
        assert again == eviction
        if dead not in self.expired:
            assert (eviction.losses, eviction.done) == ([], True)
            return
        self.evicted.add(dead)
        assert len(eviction.losses) <= limit
        for loss in eviction.losses:
            joined = self.members[dead][loss.group][loss.member.id]
            assert loss.member == joined.member
            self.expect(dead, Leave(loss.group, loss.member, joined.told), loss.answer)
        assert eviction.done == (not any(self.members[dead].values()))
        if eviction.done:
            self.expired.discard(dead)
            if not self.lab.keeps_answers:
                self.last_commit.pop(dead, None)

    @rule(node=nodes)
    def release(self, node):
        """A node without members gives up its lease, and takes a new identity."""
        if any(self.members[node].values()) or node in self.evicted:
            return
        self.run(node.release())
        self.expired.discard(node)
        self.evicted.add(node)
        self.released.add(node)
        self.last_commit.pop(node, None)
        if self.evicted.issuperset(self.lab.nodes):
            self.bury()

    def bury(self):
        """Let the evicted end: who comes next would take them for living nodes."""
        for node in self.evicted - self.released:
            self.run(self.lab.store.forget(node.incarnation))
        self.released |= self.evicted

    # What has to be so

    @invariant()
    def reads_are_right(self):
        self.run(self.check())

    async def check(self):
        counts = {}
        for group in GROUPS:
            living = self.living(group)
            users = {one.member.user_id for one in living.values()} - {None}
            await self.check_group(group, living, users)
            if living:
                counts[group] = len(living)
        await self.check_totals(counts)

    async def check_group(self, group, living, users):
        store = self.lab.store
        assert await store.count(group) == len(living)
        assert await store.users(group) == users
        assert await store.user_count(group) == len(users)
        members, _ = await list_members(store, group)
        assert sorted(members) == sorted(one.member for one in living.values())
        for id in [*list(living)[:2], "nobody"]:
            joined = living.get(id)
            assert await store.member(group, id) == (joined and joined.member)

    async def check_totals(self, counts):
        store = self.lab.store
        ann = [(g, m) for g in GROUPS for m in self.members_of("ann", g)]
        found, cursor = await store.user_members("ann", None)
        while cursor is not None:
            page, cursor = await store.user_members("ann", cursor)
            found = found + page
        assert sorted(found) == sorted(ann)
        listed, _ = await list_groups(store)
        assert dict(listed) == counts
        assert await store.group_count() == len(counts)
        assert await store.membership_count() == sum(counts.values())
        alive = set(self.lab.nodes) - self.expired - self.evicted
        channels = await store.channels()
        assert sorted(channels) == sorted(one.incarnation.channel for one in alive)

    # The model

    def operation(self, node, kind, group, connection, number, told):
        """Return what may become of a membership, or begins one.

        What ends or changes one has the values of the Join that began it.
        """
        place = node, group, connection
        own = f"{node.id} {connection} {self.generations[place]}"
        id = self.resumed.get(place, own)
        joined = self.members[node][group].get(id)
        number_of = CONNECTIONS.index(connection)
        user = USERS[number_of % len(USERS)]
        about = {"n": len(id)}, None, 1_700_000_000.25 + number_of
        who = joined.member if joined else member(id, user, *about)
        told = joined.told if joined else told
        if kind == "update":
            return Update(group, who._replace(info={"updated": number}), told)
        if kind == "leave" or (kind == "linger" and user is None):
            return Leave(group, who, told)
        if kind == "linger":
            return Leave(group, who, told, GRACE)
        return Join(group, who, number, told, () if kind == "resume" else None)

    def expect(self, node, operation, answer):
        """Change the model as the answer must have changed the store."""
        group, id = operation.group, operation.member.id
        mine, lingering = self.members[node][group], self.lingering[group]
        before = self.everybody(group)
        own = [
            id
            for id, one in lingering.items()
            if one.member.user_id == operation.member.user_id
        ]
        if isinstance(operation, Update):
            outcome = "updated" if id in mine else "unchanged"
            if id in mine:
                mine[id] = replace(mine[id], member=operation.member)
        elif isinstance(operation, Leave):
            outcome = "left" if len(before) > 1 else "destroyed"
            left = mine.pop(id, None)
            if left is None:
                outcome = "unchanged"
            elif operation.grace:
                outcome = "lingering"
                lingering[id] = left
        elif id in mine and not (own and operation.resume is not None):
            outcome = "unchanged"
        elif own and operation.resume is not None:
            outcome = "resumed"
            former = lingering.pop(answer.former.id).member
            assert former == answer.former
            assert former.id in own
            about = {"id": former.id, "joined_at": former.joined_at}
            who = operation.member._replace(**about)
            mine[former.id] = replace(operation, member=who)
        elif operation.limit is not None and len(before) >= operation.limit:
            outcome = "full"
        else:
            outcome = "joined" if before else "created"
            mine[id] = operation
        after = self.everybody(group)
        users = {one.member.user_id for one in after.values()} - {None}
        assert answer.outcome == outcome
        assert (answer.count, answer.user_count) == (len(after), len(users))
        if outcome in ("created", "joined", "updated", "left", "destroyed"):
            assert answer.revision > self.revisions[group]
            self.revisions[group] = answer.revision

    def follow(self, node, group, connection, operation, answer):
        """Note which membership a connection has now."""
        place = node, group, connection
        if answer.outcome == "resumed":
            self.resumed[place] = answer.former.id
        elif answer.outcome == "lingering":
            self.generations[place] += 1
        if answer.outcome in ("left", "destroyed", "lingering"):
            self.resumed.pop(place, None)

    def members_of(self, user, group):
        members = [one.member for one in self.living(group).values()]
        return [one for one in members if one.user_id == user]

    def everybody(self, group):
        """Return all members, also those on nodes that are not evicted yet."""
        nodes = self.members.values()
        held = {id: one for node in nodes for id, one in node[group].items()}
        return {**self.lingering[group], **held}

    def living(self, group):
        """Return the members that reads may show."""
        dead = self.expired | self.evicted
        held = {
            id: one
            for node, joined in self.members.items()
            if node not in dead
            for id, one in joined[group].items()
        }
        return {**self.lingering[group], **held}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kind", ["memory", "core", "pubsub", "core-sealed", *DATABASE_KINDS]
)
def test_store_is_what_its_model_is(kind, server, settings, django_db_blocker):
    """Random histories, the shortest of which is shown if one goes wrong."""
    loop = asyncio.new_event_loop()
    loop.set_debug(False)  # It would take ten times as long.
    prefix = f"model-{uuid.uuid4().hex}"
    make = partial(make_lab, kind, server, prefix, settings)
    attributes = {"loop": loop, "make_lab": staticmethod(make)}
    machine = type("Model", (StoreModel,), attributes)
    try:
        with django_db_blocker.unblock():
            run_state_machine_as_test(
                machine,
                settings=hypothesis_settings(
                    max_examples=EXAMPLES[kind.partition("-")[0]],
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    phases=set(Phase) - {Phase.explain},
                ),
            )
    finally:
        loop.close()

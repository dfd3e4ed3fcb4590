"""Each async method has a sync twin with the same parameters, and each mixin too."""

import inspect

import pytest

from channels_groups.consumers import (
    AsyncGroupConsumerMixin,
    AsyncGroupStateConsumerMixin,
    GroupConsumerMixin,
    GroupStateConsumerMixin,
)
from channels_groups.groups import Connection, ConnectionGroup, Recipients
from channels_groups.manager import GroupManager
from channels_groups.users import GroupUser

#: The sync name of what cannot be told from the async one by its first letter.
SPECIAL = {"__aiter__": "__iter__"}

TWINS = {
    Recipients: {"asend", "asend_json", "asend_event", "aclose_all"},
    ConnectionGroup: {
        *("acount", "auser_count", "ausers", "aexists", "aget", "__aiter__"),
        "arevision",
    },
    Connection: {
        *("asend", "asend_json", "asend_event", "aclose"),
        *("aset_group", "aupdate_info"),
    },
    GroupUser: {
        *("aconnected", "aconnection_count", "agroups", "__aiter__"),
    },
    GroupManager: {
        *("aget_group", "agroups", "agroup_count", "amembership_count", "aclose_all"),
    },
}


def is_async(function):
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def parameters(function):
    return list(inspect.signature(function).parameters.values())


def result(function):
    """Return what comes out in the end, of an iterator what it yields."""
    annotation = str(inspect.signature(function).return_annotation)
    return annotation.replace("AsyncIterator", "Iterator")


@pytest.mark.parametrize("cls", TWINS, ids=lambda cls: cls.__name__)
def test_every_async_method_has_a_sync_twin(cls):
    found = {
        name
        for name, member in vars(cls).items()
        if is_async(member) and (not name.startswith("_") or name in SPECIAL)
    }
    assert found == TWINS[cls]
    for name in found:
        twin = getattr(cls, SPECIAL.get(name, name[1:]))
        assert not is_async(twin), name
        assert parameters(twin) == parameters(getattr(cls, name)), name
        assert result(twin) == result(getattr(cls, name)), name


@pytest.mark.parametrize("cls", TWINS, ids=lambda cls: cls.__name__)
def test_every_sync_method_that_waits_has_an_async_twin(cls):
    """All wait by async_to_sync(), but for the policy, which is asked the other way."""
    waiting = {
        name
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and "async_to_sync" in member.__code__.co_names
    }
    twins = {SPECIAL.get(name, name[1:]) for name in TWINS[cls]}
    assert waiting == twins - {"get_group"}


CONSUMER = {
    *("group_manager", "group", "group_name", "connection", "joined_groups"),
    *("set_group", "join_group", "leave_group", "update_info"),
    *("get_group_user_id", "get_group_info", "group_grace"),
    *("group_join", "group_leave", "group_update", "group_changed"),
}
#: Handlers of the library's own messages.
HANDLERS = {"groups_change", "groups_set_group", "groups_update_info"}
COROUTINES = {
    *("set_group", "join_group", "leave_group", "update_info"),
    *("group_join", "group_leave", "group_update", "group_changed"),
}


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def test_both_mixins_have_the_same_public_names():
    # What Channels has too, and what only an async HTTP consumer can be sent.
    others = {"channel_layer_alias", "channel_receive", "dispatch", "groups_frame"}
    for mixin in (AsyncGroupConsumerMixin, GroupConsumerMixin):
        assert public(mixin) - others == CONSUMER | HANDLERS


@pytest.mark.parametrize("name", sorted(CONSUMER | HANDLERS))
def test_both_mixins_take_the_same_parameters(name):
    one = inspect.getattr_static(AsyncGroupConsumerMixin, name)
    two = inspect.getattr_static(GroupConsumerMixin, name)
    if not inspect.isfunction(one):
        assert one is two
        return
    assert parameters(one) == parameters(two)
    assert is_async(one) == (name in COROUTINES | HANDLERS)
    assert not is_async(two)


STATE = {"get_group_member", "receive", "groups_state", "groups_left"}


def test_the_mixins_for_state_add_the_same_names():
    pairs = [
        (AsyncGroupStateConsumerMixin, AsyncGroupConsumerMixin),
        (GroupStateConsumerMixin, GroupConsumerMixin),
    ]
    for mixin, base in pairs:
        assert public(mixin) - public(base) == STATE
    for name in STATE:
        one = getattr(AsyncGroupStateConsumerMixin, name)
        two = getattr(GroupStateConsumerMixin, name)
        assert parameters(one) == parameters(two)
        assert is_async(one) == (name != "get_group_member")
        assert not is_async(two)


#: As docs and DESIGN have them.
SIGNATURES = {
    (ConnectionGroup, "send"): "(text_data=None, bytes_data=None, *, exclude=())",
    (ConnectionGroup, "send_json"): "(content, *, exclude=())",
    (ConnectionGroup, "send_event"): "(message, *, exclude=())",
    (ConnectionGroup, "close_all"): "(code=None, reason=None)",
    (ConnectionGroup, "get"): "(id)",
    (Connection, "send"): "(text_data=None, bytes_data=None)",
    (Connection, "close"): "(code=None, reason=None)",
    (Connection, "set_group"): "(name)",
    (Connection, "update_info"): "(info)",
    (GroupManager, "groups"): "(prefix='')",
    (GroupManager, "get_group"): "(name, connection)",
    (GroupManager, "max_members"): "(group)",
    (GroupManager, "close_all"): "(code=None, reason=None, local=False)",
}


@pytest.mark.parametrize("cls, name", SIGNATURES)
def test_the_promised_signatures(cls, name):
    signature = inspect.signature(getattr(cls, name))
    plain = [
        one.replace(annotation=inspect.Parameter.empty)
        for one in list(signature.parameters.values())[1:]
    ]
    found = inspect.Signature(plain)
    assert str(found) == SIGNATURES[cls, name]

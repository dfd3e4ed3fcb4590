"""The names and signatures that users write; a change here is one for the CHANGELOG."""

import inspect
import typing
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import import_module

import pytest
from django.dispatch import Signal

import channels_groups
from channels_groups import conf, consumers, exceptions, groups, manager, testing
from channels_groups.stores.base import Member

utc = timezone.utc

BOTH_MIXINS = [consumers.AsyncGroupConsumerMixin, consumers.GroupConsumerMixin]

CONSUMER = {
    "set_group": "(name)",
    "join_group": "(name)",
    "leave_group": "(name)",
    "update_info": "(info)",
    "get_group_user_id": "()",
    "get_group_info": "()",
    "group_join": "(group, connection)",
    "group_leave": "(group, connection)",
    "group_update": "(group, connection)",
    "group_changed": "(change)",
}
GROUP = {
    "count": "()",
    "user_count": "()",
    "users": "()",
    "exists": "()",
    "revision": "()",
    "get": "(id)",
    "send": "(text_data=None, bytes_data=None, *, exclude=())",
    "send_json": "(content, *, exclude=())",
    "send_event": "(message, *, exclude=())",
    "close_all": "(code=None, reason=None)",
}
CONNECTION = {
    "send": "(text_data=None, bytes_data=None)",
    "send_json": "(content)",
    "send_event": "(message)",
    "close": "(code=None, reason=None)",
    "set_group": "(name)",
    "update_info": "(info)",
}
MANAGER = {
    "group_count": "()",
    "membership_count": "()",
    "groups": "(prefix='')",
    "close_all": "(code=None, reason=None, local=False)",
}
SIGNALS = [
    *("group_created", "group_join", "group_leave", "group_destroyed"),
    *("group_update", "group_user_join", "group_user_leave"),
]


def signature(function):
    """Return a signature without annotations and without self."""
    parameters = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    ]
    return str(inspect.Signature(parameters))


def test_consumers_that_show_state():
    for mixin in (
        consumers.AsyncGroupStateConsumerMixin,
        consumers.GroupStateConsumerMixin,
    ):
        has(mixin, {**CONSUMER, "get_group_member": "(connection)"})


def has(owner, signatures):
    assert {name: signature(getattr(owner, name)) for name in signatures} == signatures


@pytest.mark.parametrize("mixin", BOTH_MIXINS)
def test_consumers(mixin):
    has(mixin, CONSUMER)
    assert mixin.group_manager is mixin.group_grace is None
    for name in ("group", "group_name", "connection", "joined_groups"):
        assert name in dir(mixin) or name in typing.get_type_hints(mixin)
    is_async = mixin is consumers.AsyncGroupConsumerMixin
    assert inspect.iscoroutinefunction(mixin.set_group) is is_async


@pytest.mark.parametrize(
    "owner, signatures",
    [
        (groups.ConnectionGroup, GROUP),
        (groups.Connection, CONNECTION),
        (manager.GroupManager, MANAGER),
    ],
)
def test_sync_and_async_twins(owner, signatures):
    has(owner, signatures)
    has(owner, {f"a{name}": wanted for name, wanted in signatures.items()})


def test_groups_are_iterated():
    for method in ("__iter__", "__aiter__"):
        assert hasattr(groups.ConnectionGroup, method)


def test_groups_are_equal_by_alias_and_name():
    room = manager.get_group("room")
    same = manager.GroupManager().group("room")
    assert room == same and hash(room) == hash(same)
    others = manager.get_group("other"), manager.GroupManager("another").group("room")
    assert room not in others and len({room, same, *others}) == 3


def test_a_connection_tells_who_it_is():
    group = manager.get_group("room")
    assert (group.name, group.manager) == ("room", manager.get_group_manager())
    member = Member("id", "channel", "7", {"a": 1}, 1700000000.0)
    connection = manager.get_group_manager().connection(member, group)
    assert (connection.id, connection.channel_name) == ("id", "channel")
    assert (connection.user_id, connection.info) == ("7", {"a": 1})
    assert connection.joined_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=utc)
    assert (connection.group, connection.scope) == (group, None)


def test_a_change():
    assert signature(groups.GroupChange) == (
        "(group, joined, left, count, user_count, revision, updated=(), previous=0)"
    )


def test_managers():
    assert signature(manager.get_group_manager) == "(alias='default')"
    assert signature(manager.get_group) == "(name, alias='default')"
    assert signature(manager.GroupManager) == "(alias='default')"
    has(
        manager.GroupManager,
        {
            "group": "(name)",
            "aget_group": "(name, connection)",
            "max_members": "(group)",
        },
    )


def test_signals():
    module = import_module("channels_groups.signals")
    found = {name for name, one in vars(module).items() if isinstance(one, Signal)}
    assert found == set(SIGNALS)


def test_exceptions():
    from channels.exceptions import DenyConnection

    assert issubclass(exceptions.GroupRejected, (exceptions.GroupError, DenyConnection))
    assert issubclass(exceptions.GroupRejected, DenyConnection)
    assert issubclass(exceptions.GroupFull, exceptions.GroupRejected)
    for name in ("GroupRejected", "ConnectionClosed", "StoreUnavailable"):
        assert issubclass(getattr(exceptions, name), exceptions.GroupError)


def test_settings():
    settings = asdict(conf.GroupSettings())
    wanted = {
        "manager": "channels_groups.manager.GroupManager",
        "store": None,
        "lease": 10,
        "change_interval": 0.1,
        "max_members": None,
        "outbox": 1000,
        "plain_group_send": True,
        "state_limit": 1000,
        "grace": 0,
    }
    assert {key: settings[key] for key in wanted} == wanted


def test_testing():
    event = (
        *("name", "group", "connection", "reason", "count", "user_count", "revision"),
        "user_id",
    )
    assert signature(testing.capture_group_events) == "(*names)"
    assert tuple(inspect.signature(testing.GroupEvent).parameters) == event
    for wait in (testing.GroupEvents.wait_for, testing.GroupEvents.await_for):
        assert signature(wait) == "(name, *, timeout=5, **facts)"
    for wait in (testing.wait_for_count, testing.await_for_count):
        assert signature(wait) == "(group, count, *, timeout=5)"
    isolated = signature(testing.isolated_groups)
    assert isolated == "(*, channel_layers=None, **keys)"
    assert signature(testing.FakeClock.advance) == "(seconds)"
    assert signature(testing.simulated_process) == "(alias='default')"
    has(testing.simulated_process, {"serve": "(application)", "kill": "()"})


def test_the_package_itself_holds_the_version_only():
    names = [name for name in vars(channels_groups) if not name.startswith("_")]
    modules = [
        name for name in names if inspect.ismodule(getattr(channels_groups, name))
    ]
    assert names == modules
    assert channels_groups.__version__

"""Settings: a mistake is found at start, and the error names the setting."""

import pytest
from channels.layers import BaseChannelLayer, InMemoryChannelLayer, get_channel_layer
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from channels_groups import conf
from channels_groups.manager import GroupManager, get_group_manager
from channels_groups.stores.memory import MemoryStore

from ..helpers import layers


class OtherLayer(BaseChannelLayer):
    """A layer that the library does not know."""


class DerivedLayer(InMemoryChannelLayer):
    """A layer of a known kind."""


class OtherStore(MemoryStore):
    pass


class OtherManager(GroupManager):
    pass


@pytest.fixture(autouse=True)
def channel_layers(settings):
    settings.CHANNEL_LAYERS = layers.memory_layer() | {
        "other": {"BACKEND": f"{__name__}.OtherLayer"}
    }
    settings.CHANNELS_GROUPS = {}


def start():
    """Do what Django does at start."""
    apps.get_app_config("channels_groups").ready()


def test_the_defaults():
    start()
    assert conf.get_settings("default") == conf.GroupSettings(
        manager="channels_groups.manager.GroupManager",
        store=None,
        lease=10,
        change_interval=0.1,
        max_members=None,
        outbox=1000,
        plain_group_send=True,
        grace=0,
    )


def test_no_settings_at_all(settings):
    del settings.CHANNELS_GROUPS
    start()
    assert type(get_group_manager()) is GroupManager


BAD = [
    ("LEASE", 0.9),
    ("LEASE", 0),
    ("LEASE", -1),
    ("LEASE", "10"),
    ("LEASE", None),
    ("LEASE", True),
    ("LEASE", float("inf")),
    ("LEASE", float("nan")),
    ("CHANGE_INTERVAL", -0.1),
    ("CHANGE_INTERVAL", "0"),
    ("CHANGE_INTERVAL", float("nan")),
    ("CHANGE_INTERVAL", float("inf")),
    ("MAX_MEMBERS", 0),
    ("MAX_MEMBERS", -5),
    ("MAX_MEMBERS", 1.5),
    ("MAX_MEMBERS", True),
    ("OUTBOX", 0),
    ("OUTBOX", None),
    ("OUTBOX", "100"),
    ("PLAIN_GROUP_SEND", 1),
    ("PLAIN_GROUP_SEND", None),
    ("GRACE", -1),
    ("GRACE", "10"),
    ("GRACE", None),
    ("GRACE", float("inf")),
    ("MANAGER", None),
    ("MANAGER", GroupManager),
    ("MANAGER", "GroupManager"),
    ("MANAGER", "no.such.module"),
    ("MANAGER", "channels_groups.manager.NoSuchManager"),
    ("STORE", MemoryStore),
    ("STORE", "no.such.Store"),
    ("STORE", 5),
]


@pytest.mark.parametrize("key, value", BAD)
def test_a_bad_value_is_found_at_start(settings, key, value):
    settings.CHANNELS_GROUPS = {"default": {key: value}}
    with pytest.raises(ImproperlyConfigured) as raised:
        start()
    assert key in str(raised.value)
    assert "CHANNELS_GROUPS" in str(raised.value)
    assert "default" in str(raised.value)


@pytest.mark.parametrize("key", ["LEASES", "lease", "", "BACKEND", 5])
def test_an_unknown_key_is_found_at_start(settings, key):
    settings.CHANNELS_GROUPS = {"default": {key: 10}}
    with pytest.raises(ImproperlyConfigured, match="unknown key") as raised:
        start()
    assert repr(key) in str(raised.value)
    assert "LEASE" in str(raised.value)


@pytest.mark.parametrize(
    "config", [None, [], "default", {"default": None}, {"default": 5}]
)
def test_what_is_no_dict_is_found_at_start(settings, config):
    settings.CHANNELS_GROUPS = config
    with pytest.raises(ImproperlyConfigured, match="CHANNELS_GROUPS.*dict"):
        start()


def test_an_alias_without_a_layer_is_found_at_start(settings):
    settings.CHANNELS_GROUPS = {"defualt": {}}
    with pytest.raises(ImproperlyConfigured, match="defualt.*CHANNEL_LAYERS"):
        start()


def test_every_alias_is_checked(settings):
    settings.CHANNELS_GROUPS = {"default": {}, "other": {"LEASE": 0}}
    with pytest.raises(ImproperlyConfigured, match="other.*LEASE"):
        start()


GOOD = [
    {"LEASE": 1},
    {"LEASE": 2.5, "CHANGE_INTERVAL": 0, "MAX_MEMBERS": 1, "OUTBOX": 1},
    {"PLAIN_GROUP_SEND": False, "MAX_MEMBERS": None, "STORE": None},
    {"MANAGER": f"{__name__}.OtherManager", "STORE": f"{__name__}.OtherStore"},
]


@pytest.mark.parametrize("config", GOOD)
def test_good_values(settings, config):
    settings.CHANNELS_GROUPS = {"default": config}
    start()
    found = conf.get_settings("default")
    assert {key: getattr(found, key.lower()) for key in config} == config


@pytest.mark.parametrize("lease, renewal", [(1, 1 / 3), (2.4, 0.8), (3, 1), (60, 1)])
def test_a_lease_is_renewed_thrice_and_at_least_once_a_second(settings, lease, renewal):
    settings.CHANNELS_GROUPS = {"default": {"LEASE": lease}}
    assert conf.get_settings("default").renewal == pytest.approx(renewal)


def test_an_unknown_layer_needs_a_store():
    with pytest.raises(ImproperlyConfigured) as raised:
        get_group_manager("other").store
    assert "CHANNELS_GROUPS['other'][\"STORE\"]" in str(raised.value)
    assert "OtherLayer" in str(raised.value)


def test_an_unknown_layer_with_a_store(settings):
    settings.CHANNELS_GROUPS = {"other": {"STORE": f"{__name__}.OtherStore"}}
    start()
    assert isinstance(get_group_manager("other").store, OtherStore)


def test_a_layer_that_is_derived_from_a_known_one_has_its_store(settings):
    path = f"{__name__}.DerivedLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": path}}
    assert type(get_channel_layer()) is DerivedLayer
    assert type(get_group_manager().store) is MemoryStore


def test_a_manager_of_ones_own(settings):
    settings.CHANNELS_GROUPS = {"default": {"MANAGER": f"{__name__}.OtherManager"}}
    manager = get_group_manager()
    assert type(manager) is OtherManager
    assert manager is get_group_manager("default")
    assert manager.alias == "default"


def test_changed_settings_make_new_managers(settings):
    before = get_group_manager()
    assert before is get_group_manager()
    settings.CHANNELS_GROUPS = {"default": {"MAX_MEMBERS": 5}}
    after = get_group_manager()
    assert after is not before
    assert after.max_members(after.group("room")) == 5


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ImproperlyConfigured, match="nowhere"):
        get_group_manager("nowhere").channel_layer

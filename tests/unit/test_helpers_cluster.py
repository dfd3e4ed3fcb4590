"""Cluster and Node: real server processes of a small application."""

import urllib.error

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.eventually import eventually

APPLICATION = "tests.unit.stub_application:application"


@pytest.fixture
def cluster(tmp_path):
    with Cluster("redis://stub", tmp_path, application=APPLICATION) as cluster:
        yield cluster


def test_each_server_runs_on_a_port_of_its_own(cluster):
    daphne, uvicorn = cluster.start("daphne", "uvicorn", layer="pubsub")
    assert daphne.port != uvicorn.port
    for node in (daphne, uvicorn):
        answer = node.api("rooms/")
        assert answer["pid"] == node.pid
        assert answer["layer"] == ["pubsub", "redis://stub"]
    assert uvicorn.room("a/b c")["path"] == "/api/rooms/a/b c/"
    assert daphne.ws_url("a/b c", "é").endswith("/ws/rooms/a%2Fb%20c/?name=%C3%A9")


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_the_verbs(cluster, server, monkeypatch):
    (node,) = cluster.start(server)
    port = node.port

    node.freeze()
    monkeypatch.setattr("tests.helpers.cluster.REQUEST_TIMEOUT", 0.2)
    with pytest.raises(TimeoutError):
        node.api("rooms/")
    node.thaw()
    assert eventually(lambda: node.api("rooms/"), ignoring=(TimeoutError,))

    assert node.kill() == -9
    assert not node.running
    with pytest.raises(urllib.error.URLError, match="refused"):
        node.api("rooms/")

    node.restart()
    assert node.port == port
    assert node.api("rooms/")["pid"] == node.pid
    node.freeze()
    assert node.terminate() in (0, -15), "it is thawed for that"
    assert cluster.running == []


def test_the_files_of_a_node(cluster):
    (node,) = cluster.start("uvicorn")
    assert node.events() == []
    assert node.complaints() == []
    node.api("log/")
    (event,) = cluster.events()
    assert (event["event"], event["revision"]) == ("created", 1)
    with pytest.raises(urllib.error.HTTPError) as error:
        node.api("fail/")
    error.value.close()
    complaints = "\n".join(cluster.complaints())
    assert "node-0: Traceback" in complaints


def test_a_node_that_cannot_start_shows_its_log(tmp_path):
    with Cluster("", tmp_path, application="tests.no_such:thing") as cluster:
        with pytest.raises(AssertionError, match="ended while starting(.|\n)*no_such"):
            cluster.start("daphne")


def test_all_end_with_the_cluster(cluster):
    (node,) = cluster.start("daphne")
    node.freeze()
    cluster.close()
    assert not node.running

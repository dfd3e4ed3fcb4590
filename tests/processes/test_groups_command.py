"""``manage.py groups`` beside servers of its own kind: the whole cluster is heard."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.helpers.client import connect
from tests.helpers.cluster import PROJECT
from tests.helpers.eventually import aeventually
from tests.helpers.processes import ChildProcess

COMMAND = [sys.executable, "manage.py", "groups"]


@pytest.fixture
def environment(cluster, own_redis):
    return {
        **os.environ,
        "CHANNEL_LAYER": cluster.layer,
        "REDIS_URL": own_redis.url,
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "error",
        **cluster.env,
    }


@pytest.fixture
def groups(environment):
    """Return a function that runs the command to its end, off a terminal."""

    def groups(*words, code=0, **options):
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr if code else done.stdout

    return groups


class Watch(ChildProcess):
    """A running ``groups watch --json``."""

    def __init__(self, directory, environment, *words):
        self.log_path = directory / "watch.log"
        command = [*COMMAND, "watch", "--json", *words]
        super().__init__(command, self.log_path, cwd=PROJECT, env=environment)

    def lines(self):
        """Return its events, and what it said beside."""
        written = self.log_path.read_text().split("\n")[:-1]
        events = [json.loads(line) for line in written if line.startswith("{")]
        return events, [line for line in written if not line.startswith("{")]

    def facts(self, group):
        """Return what happened to a group: name, who and why."""
        return [
            (one["name"], one["user_id"], one["reason"])
            for one in self.lines()[0]
            if one["group"] == group
        ]


@contextmanager
def watching(*about):
    watch = Watch(*about)
    try:
        yield watch
    finally:
        if watch.running:
            watch.kill()


async def hears(watch, node):
    """Wait until the nodes know that somebody watches."""

    async def is_told():
        async with connect(node, "first", "somebody"):
            return watch.facts("first")

    await aeventually(is_told, timeout=40)


async def test_watch_hears_of_everything_in_the_cluster(
    cluster, own_redis, environment, tmp_path
):
    one, two = cluster.start("daphne", "uvicorn")
    with watching(tmp_path, environment) as watch:
        async with connect(one, "stays", "ann"), connect(two, "stays", "bob"):
            await hears(watch, one)
            async with connect(two, "red", "cat"):
                pass
            whole = [
                ("created", None, None),
                ("join", "cat", None),
                ("leave", "cat", "disconnected"),
                ("destroyed", None, None),
            ]
            await aeventually(lambda: watch.facts("red"), equals=whole, timeout=20)
            # A process that comes later, and its first connection.
            (three,) = cluster.start("uvicorn")
            async with connect(three, "green", "dan"):
                pass
            whole = [(name, who and "dan", why) for name, who, why in whole]
            await aeventually(lambda: watch.facts("green"), equals=whole, timeout=20)
            two.kill()
            lost = ("leave", "bob", "lost")
            await aeventually(lambda: lost in watch.facts("stays"), timeout=20)
            own_redis.pause()
            await aeventually(lambda: "missed" in str(watch.lines()[1]), timeout=20)
            own_redis.resume()
            await aeventually(lambda: "again" in str(watch.lines()[1]), timeout=20)

            async def is_heard_again():
                async with connect(one, "blue", "eve"):
                    return watch.facts("blue")

            await aeventually(is_heard_again, timeout=40, ignoring=(AssertionError,))
        assert watch.interrupt() == 0
        assert "Traceback" not in watch.log_path.read_text()
    with own_redis.client() as client:
        assert client.keys("*watchers*") == [], "it is forgotten at once"


async def test_each_action_in_the_cluster(cluster, own_redis, environment, groups):
    one, two = cluster.start("daphne", "uvicorn")
    async with connect(one, "red", "ann") as ann, connect(two, "red", "bob") as bob:
        about = json.loads(groups("show", "red", "--json"))
        members = {each["user_id"]: each for each in about["connections"]}
        assert {user: each["id"] for user, each in members.items()} == {
            "ann": ann.id,
            "bob": bob.id,
        }
        assert members["ann"]["process"].endswith(f":{one.pid}")
        assert members["bob"]["process"].endswith(f":{two.pid}")
        processes = json.loads(groups("processes", "--json"))
        assert {each["process"] for each in processes} == {
            members[user]["process"] for user in members
        }
        assert [each["memberships"] for each in processes] == [1, 1]
        listed = json.loads(groups("list", "--json", "--alias", "default"))
        assert listed == [{"name": "red", "members": 2, "users": 2}]
        assert "all agree" in groups("verify")
        with own_redis.client() as client:
            (index,) = client.keys("*:groups:index")
            # A wrong count would be noticed by the next renewals.
            client.hset(index.replace(":index", ":users:red"), "ghost", 1)
        assert "(3 are listed, 2 are there)" in groups("verify", code=1)
        assert "--no-input" in groups("close", "red", code=1)
        assert "All of it is mended." in groups("verify", "--repair", "--no-input")
        assert "Asked 2 connections of red to close." in groups(
            *("close", "red", "--code", "4002", "--no-input")
        )
        for client in (ann, bob):
            await aeventually(lambda: not client.is_open, timeout=20)
        assert "There is no group 'red'" in groups("show", "red", code=1)

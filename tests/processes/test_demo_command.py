"""``manage.py demo``: what it starts, and that nothing of it outlives it."""

import os
import re
import signal
import socket
import sys
import urllib.request
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.cluster import PROJECT
from tests.helpers.eventually import aeventually, eventually
from tests.helpers.processes import ChildProcess

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="Finds children in Linux's /proc."
)


class Demo:
    """One run of the command."""

    def __init__(self, directory, *options, port, **env):
        self.log_path = directory / "demo.log"
        command = [sys.executable, "manage.py", "demo", "--port", str(port), *options]
        # The caller's choice of a layer is not the test's.
        kept = {"PATH", "HOME", "PYTHONASYNCIODEBUG"} & set(os.environ)
        env = {**{key: os.environ[key] for key in kept}, **env}
        env["TMPDIR"] = str(directory)  # killed, it cannot tidy up
        env.setdefault("DATABASE", str(directory / "db.sqlite3"))
        self.process = ChildProcess(command, self.log_path, cwd=PROJECT, env=env)

    @property
    def log(self):
        return self.log_path.read_text()

    def urls(self, count):
        """Wait for the addresses it prints when all of it serves."""
        return eventually(lambda: self.printed(count), timeout=30)

    def printed(self, count):
        assert self.process.running, self.log
        found = re.findall(r"^Rooms are open at (http://.+)/$", self.log, re.M)
        return found if len(found) == count else None

    def children(self):
        """Return the process ids of its children."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]


@pytest.fixture
def run(tmp_path):
    """Return a context manager that runs the command and leaves nothing behind."""

    @contextmanager
    def run(*options, **keywords):
        demo = Demo(tmp_path, *options, port=free_ports(3), **keywords)
        try:
            yield demo
        finally:
            if demo.process.running:
                demo.process.terminate()

    return run


async def test_several_processes_are_one_house(run):
    with run("--processes", "3") as demo:
        urls = demo.urls(3)
        ports = [int(url.rpartition(":")[2]) for url in urls]
        assert ports == [*range(ports[0], ports[0] + 3)]
        children = demo.children()
        assert len(children) == 4, "the store and three servers"
        async with enter(urls[0]) as first:
            async with enter(urls[1]) as second:
                assert (first.process, second.process) == tuple(map(str, ports[:2]))
                await first.receive("join", id=second.id)
            # Only the page is waited for: a script that has gone has left.
            await first.receive("leave", id=second.id)
            async with enter(urls[2]) as third:
                assert third.process == str(ports[2])
                assert third.id != second.id
                await first.receive("join", id=third.id)
        async with enter(urls[0]) as first, enter(urls[1]) as second:
            await second.send_text("x" * 2_000_000)
            await second.receive("error", error="malformed")
        assert demo.process.interrupt() == 0
    assert not any(map(is_running, children))
    assert "All processes have ended." in demo.log
    assert "Traceback" not in demo.log


async def test_two_that_make_the_tables_at_once(tmp_path):
    """As on a clean checkout with one terminal for each."""
    demos, database = [], str(tmp_path / "db.sqlite3")
    try:
        for name in "one", "two":
            (tmp_path / name).mkdir()
            port = free_ports(1)
            demos.append(Demo(tmp_path / name, port=port, DATABASE=database))
        for demo in demos:
            (url,) = demo.urls(1)
            async with enter(url) as client:
                assert client.process == url.rpartition(":")[2]
        for demo in demos:
            assert demo.process.interrupt() == 0
            assert "Traceback" not in demo.log
    finally:
        for demo in demos:
            if demo.process.running:
                demo.process.terminate()


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_one_process_serves_everything(run, server):
    with run("--server", server) as demo:
        (url,) = demo.urls(1)
        (child,) = demo.children()
        for path in ("/", "/rooms/a%20room/", "/static/rooms/room.js", "/admin/login/"):
            with urllib.request.urlopen(url + path) as answer:
                assert answer.status == 200
        async with enter(url) as client:
            assert client.process == url.rpartition(":")[2]
        assert demo.process.terminate() == 0
    assert not is_running(child)


def test_when_one_ends_all_end(run):
    with run("--processes", "2") as demo:
        demo.urls(2)
        children = demo.children()
        os.kill(children[-1], signal.SIGKILL)
        eventually(lambda: not demo.process.running)
    assert demo.process.exit_code == 1
    assert "ended, with code -9. The rest is ended too." in demo.log
    assert not any(map(is_running, children))


def test_when_it_is_killed_all_end(run):
    with run("--processes", "2") as demo:
        demo.urls(2)
        children = demo.children()
        demo.process.kill()
        eventually(lambda: not any(map(is_running, children)))


def test_a_port_in_use(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with run("--port", str(port)) as demo:
            eventually(lambda: not demo.process.running)
    assert demo.process.exit_code == 1
    assert f"Port {port} is in use" in demo.log


def test_no_process_at_all(run):
    with run("--processes", "0") as demo:
        eventually(lambda: not demo.process.running)
    assert "There must be a process" in demo.log


@asynccontextmanager
async def enter(url):
    """Be in the house, once the store lets anybody in."""

    async def open():
        address = f"{url.replace('http', 'ws')}/ws/rooms/house/?name=first"
        return await Client(address, room="house", name="first").open()

    client = await aeventually(open, ignoring=(AssertionError,))
    try:
        yield client
    finally:
        await client.close()


def is_running(pid):
    """Whether the process is there and more than a zombie."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False


def free_ports(count):
    """Return the first of some consecutive ports that nobody listens on."""
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind(("127.0.0.1", 0))
            first = sockets[0].getsockname()[1]
            for i, each in enumerate(sockets[1:], 1):
                each.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()

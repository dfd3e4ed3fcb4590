"""The tutorial is followed to the letter, with real servers and clients."""

import asyncio
import json
import re
import sys
import urllib.request

import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from testproject.processes import accepts, free_port

from ..helpers.eventually import eventually
from ..helpers.processes import ChildProcess
from .blocks import ROOT, read_blocks
from .project import add, environment, replace
from .transcripts import replay

PAGE = "docs/tutorial.md"
TIMEOUT = 20
# Django tells of it when a browser goes on before its request was answered.
ABORTED = re.compile(r"Traceback(?:(?!Traceback).)*?RequestAborted\n", re.DOTALL)


class Tutorial:
    """A reader who does what the page says, part after part."""

    def __init__(self, directory, redis_port):
        self.directory = directory
        self.hosts = {"localhost:6379": f"127.0.0.1:{redis_port}"}
        self.env = environment(directory) | {
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONUNBUFFERED": "1",
        }
        self.servers = []
        self.blocks = read_blocks(PAGE)
        self.lines = (ROOT / PAGE).read_text().splitlines()

    def follow(self, heading):
        """Do all of the next part, which has this heading."""
        for block in self.part(heading):
            self.do(block)

    def part(self, heading):
        """Return the examples of the next part, which has this heading."""
        start = self.lines.index(f"## {heading}")
        rest = self.lines[start + 1 :] + ["## "]
        end = start + 1 + next(n for n, line in enumerate(rest) if line[:3] == "## ")
        part = [block for block in self.blocks if block.line <= end]
        assert all(block.line > start for block in part), "A part was passed over."
        self.blocks = self.blocks[len(part) :]
        return part

    def do(self, block):
        """Write a file, start servers or run commands."""
        assert block.reason is None
        code = replace(block.code, self.hosts)
        if block.path:
            add(self.directory / block.path, code)
        elif "runserver" in code:
            for _ in code.splitlines():
                self.serve()
        elif block.extras is None:
            replay(code, self.directory, self.env, str(block))

    def serve(self, port=0):
        """Start a server on a port that the kernel chooses."""
        # A file for each: what was written at the end of one is read no more.
        log = self.directory / f"server-{len(self.servers)}.log"
        port = port or free_port()
        command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
        server = ChildProcess(command, log, cwd=self.directory, env=self.env)
        server.log, server.port = log, port
        self.servers.append(server)
        eventually(lambda: accepts(port) or not server.running, timeout=TIMEOUT)
        assert server.running, log.read_text()

    def restart(self):
        """Start the server anew, as runserver does when a file has changed."""
        self.servers[-1].terminate()
        self.serve(port=self.servers[-1].port)

    def address(self, path, server=-1):
        return f"127.0.0.1:{self.servers[server].port}/{path}"

    def enter(self, room, server=-1):
        """Open a WebSocket to a room."""
        url = f"ws://{self.address(f'ws/{room}', server)}"
        return connect_websocket(url, origin="http://127.0.0.1", proxy=None)

    def complaints(self):
        """Return what the servers' logs say of errors."""
        logs = [ABORTED.sub("", server.log.read_text()) for server in self.servers]
        return [log for log in logs if re.search("Traceback|Warning|ERROR", log)]

    def close(self):
        for server in self.servers:
            if server.running:
                server.kill()


@pytest.fixture
def tutorial(tmp_path, redis_server):
    tutorial = Tutorial(tmp_path, redis_server.port)
    yield tutorial
    tutorial.close()


async def receive(socket, kind):
    """Return the next message of a type."""
    while True:
        message = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT))
        if message["type"] == kind:
            return message


def names(members):
    return sorted(member["name"] for member in members)


async def is_refused(opening):
    try:
        async with opening:
            return False
    except InvalidStatus as error:
        return error.response.status_code == 403


@pytest.mark.timeout(240)
async def test_tutorial(tutorial, open_browser):
    tutorial.follow("A project")

    tutorial.follow("A room")
    async with tutorial.enter("lobby/") as ann, tutorial.enter("lobby/") as bob:
        await ann.send('{"text": "hello"}')
        for socket in (ann, bob):
            assert (await receive(socket, "message"))["text"] == "hello"

    tutorial.follow("Who is there")
    tutorial.restart()
    browser = await asyncio.to_thread(open_browser)
    await check_page(browser, tutorial)

    tutorial.follow("Users")
    tutorial.follow("Who may enter")
    tutorial.restart()
    assert await is_refused(tutorial.enter("staff-room/"))
    async with tutorial.enter("private-1/"), tutorial.enter("private-1/"):
        assert await is_refused(tutorial.enter("private-1/"))
    await asyncio.to_thread(check_users, browser, tutorial)

    tutorial.follow("From anywhere else")
    tutorial.restart()
    async with tutorial.enter("lobby/") as ann:
        await receive(ann, "group.state")
        assert await asyncio.to_thread(read_json, tutorial.address("")) == {"lobby": 1}
    log = tutorial.servers[-1].log
    eventually(lambda: "Room lobby is empty." in log.read_text())
    assert "Room lobby is open." in log.read_text()
    tutorial.servers[-1].terminate()

    await follow_with_processes(tutorial, browser)
    tutorial.follow("A test")
    tutorial.follow("Where to go from here")
    assert tutorial.blocks == []
    assert tutorial.complaints() == []


async def check_page(browser, tutorial):
    """The page shows who comes and goes, and what is said."""

    async def shows(css, text):
        def seen():
            return text in browser.find(css).text

        await asyncio.to_thread(browser.eventually, seen, f"{text} in {css}")

    url = f"http://{tutorial.address('lobby/?name=Ann')}"
    await asyncio.to_thread(browser.get, url)
    await shows("#members", "Ann")
    async with tutorial.enter("lobby/?name=Bob") as bob:
        assert names((await receive(bob, "group.state"))["members"]) == ["Ann", "Bob"]
        await shows("#members", "Ann, Bob")
        await bob.send('{"text": "<b>hello</b>"}')
        await shows("#log", "Bob: <b>hello</b>")
        await asyncio.to_thread(browser.find("#text").send_keys, "good day\n")
        assert (await receive(bob, "message"))["text"] == "Bob: <b>hello</b>"
        assert (await receive(bob, "message"))["text"] == "Ann: good day"
    await shows("#log", "Bob left.")
    assert browser.find("#members").text == "Ann"
    assert browser.console_errors() == []

    await asyncio.to_thread(tutorial.restart)
    async with tutorial.enter("lobby/?name=Cid") as cid:
        await shows("#members", "Ann, Cid")
        # A page that is gone may still be there, in the browser's cache.
        await asyncio.to_thread(browser.get, f"http://{tutorial.address('admin/')}")
        while not (await receive(cid, "group.change"))["left"]:
            pass
        await asyncio.to_thread(browser.back)
        await shows("#members", "Ann, Cid")


def shows_members(browser, text):
    eventually(lambda: browser.find("#members").text, equals=text, timeout=TIMEOUT)


def check_users(browser, tutorial):
    """Who is logged in is known by name, in each of several tabs."""

    browser.get(f"http://{tutorial.address('admin/')}")
    browser.console_errors()  # The page before could not connect for a while.
    browser.find("#id_username").send_keys("ann")
    browser.find("#id_password").send_keys("secret\n")
    browser.find("#user-tools")
    browser.get(f"http://{tutorial.address('lobby/')}")
    shows_members(browser, "ann")
    browser.switch_to.new_window("tab")
    browser.get(f"http://{tutorial.address('lobby/')}")
    shows_members(browser, "ann, ann")
    assert browser.console_errors() == []


async def follow_with_processes(tutorial, browser):
    """Kill one of two servers, and ask from a shell."""
    *blocks, shell = tutorial.part("Several processes")
    for block in blocks:
        tutorial.do(block)
    first, second = tutorial.servers[-2:]
    async with tutorial.enter("lobby/") as ann:
        async with tutorial.enter("lobby/", server=-2) as bob:
            [guest] = (await receive(ann, "group.change"))["joined"]
            assert guest["name"] == "guest"
            first.kill()
            assert (await receive(ann, "group.change"))["left"] == [guest["id"]]
            await bob.wait_closed()
        await asyncio.to_thread(tutorial.do, shell)
        text = (await receive(ann, "message"))["text"]
        assert text == "The shell says hello."
        await asyncio.to_thread(
            browser.get, f"http://{tutorial.address('lobby/')}"  # from the survivor
        )
        await asyncio.to_thread(shows_members, browser, "ann, guest")
    second.terminate()


def read_json(address):
    with urllib.request.urlopen(f"http://{address}", timeout=TIMEOUT) as response:
        return json.load(response)

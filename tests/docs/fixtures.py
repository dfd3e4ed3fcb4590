"""What the pages' scenarios use. In a project it is ``conftest.py``."""

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from browser import Browser, BrowserMissing
from channels.testing import WebsocketCommunicator
from transcripts import replay
from websockets.asyncio.client import connect as websocket

HERE = Path(__file__).parent
TIMEOUT = 20
# What daphne and uvicorn say, with the port that the kernel chose.
LISTENING = r"(?:TCP address |running on http://)127\.0\.0\.1:(\d+)"


class Page:
    """The page's steps, in their order: code and transcripts.

    They share a namespace, to which a scenario adds what the reader has.
    """

    def __init__(self):
        self.steps = json.loads((HERE / "steps.json").read_text())
        self.module = types.ModuleType("page")
        sys.modules["page"] = self.module
        self.names = self.module.__dict__

    async def run(self, **names):
        """Execute the next step; return the value of its last line."""
        self.names.update(names)
        where, language, code = self.take()
        if language == "console":
            await asyncio.to_thread(replay, code, HERE, os.environ, where)
        elif language == "python":
            return await self.execute(where, code)
        else:
            raise ValueError(f"{where}: nobody runs {language!r}")

    def take(self):
        """Return where the next step is, its language and its code; now it is run."""
        return self.steps.pop(0)

    async def run_all(self, **names):
        """Execute the steps that are left."""
        self.names.update(names)
        while self.steps:
            await self.run()

    async def execute(self, where, code):
        """Execute Python: in the event loop where it awaits, else in a thread."""
        *statements, last = ast.parse(code).body
        if isinstance(last, ast.Expr):
            target = ast.Name("_", ast.Store(), lineno=last.lineno, col_offset=0)
            last = ast.copy_location(ast.Assign([target], last.value), last)
        tree = ast.Module([*statements, last], [])
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(ast.fix_missing_locations(tree), where, "exec", flags)
        self.names["_"] = None
        if compiled.co_flags & inspect.CO_COROUTINE:
            await eval(compiled, self.names)
        else:
            await sync_to_async(eval)(compiled, self.names)
        return self.names["_"]


@pytest.fixture(scope="session", autouse=True)
def page():
    """The page; at the end every step must have been executed."""
    page = Page()
    yield page
    assert [where for where, *_ in page.steps] == []


@pytest.fixture
async def connect():
    """Return a function that connects a client to a consumer, closed at the end."""
    clients = []

    async def connect(consumer, path="/", user=None, **kwargs):
        client = WebsocketCommunicator(consumer.as_asgi(), path)
        client.scope.update(user=user, url_route={"args": (), "kwargs": kwargs})
        client.accepted, client.answer = await client.connect(timeout=TIMEOUT)
        if client.accepted:
            clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.disconnect(timeout=TIMEOUT)


@pytest.fixture
def open_browser(tmp_path):
    """Return a function that opens a headless browser, closed at the end."""
    browsers = []

    def open_browser():
        try:
            browsers.append(Browser(tmp_path / f"browser-{len(browsers)}"))
        except BrowserMissing as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        return browsers[-1]

    yield open_browser
    for browser in browsers:
        browser.quit()


@pytest.fixture
async def serve():
    """Return a function that starts a process of the project and waits until it says
    that it is ready; it returns what was found in that.
    """
    processes = []

    async def serve(*command, ready=LISTENING, **env):
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=HERE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        return await asyncio.wait_for(find(process.stdout, ready), TIMEOUT)

    yield serve
    for process in processes:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.fixture
async def enter(serve):
    """Return a function that enters a group as somebody, in a process of its own."""
    port = await serve("daphne", "-p", "0", "asgi:application")

    def enter(group, user):
        return websocket(f"ws://127.0.0.1:{port}/{group}?{user}", proxy=None)

    return enter


async def find(lines, pattern):
    """Read until a line has the pattern; return its last group."""
    printed = ""
    async for line in lines:
        printed += line.decode()
        found = re.search(pattern, line.decode())
        if found:
            return found[found.re.groups]
    raise AssertionError(printed)

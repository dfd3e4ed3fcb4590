import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

CONFIGURATIONS = ["settings_1", "settings_2", "settings_3", "settings_4"]


@pytest.fixture(scope="session")
def commands(page):
    """The page's two commands, on ports that the kernel chooses."""
    _, _, code = page.take()
    return [shlex.split(line[2:].replace("8000", "0")) for line in code.splitlines()]


@pytest.mark.parametrize("module", CONFIGURATIONS)
async def test_daphne_and_uvicorn_on_one_layer(module, commands, serve):
    env = {"DJANGO_SETTINGS_MODULE": module}
    ports = [await serve(*command, **env) for command in commands]
    urls = [f"ws://127.0.0.1:{port}/{module}" for port in ports]
    async with connect(urls[0], proxy=None) as ann, connect(urls[1], proxy=None) as bob:
        await asyncio.wait_for(ann.recv(), 20)
        assert await asyncio.wait_for(bob.recv(), 20) == "2"
        await bob.send("hello")
        assert await asyncio.wait_for(ann.recv(), 20) == "hello"


@pytest.mark.parametrize("module", CONFIGURATIONS)
def test_nothing_to_complain_of(module):
    check = subprocess.run(
        [sys.executable, "manage.py", "check", "--tag", "channels_groups"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": module},
        capture_output=True,
        text=True,
    )
    assert "no issues" in check.stdout, check.stdout + check.stderr


def test_that_is_all():
    written = {path.stem for path in Path(__file__).parent.glob("settings_*.py")}
    assert written == {"settings_0", *CONFIGURATIONS}

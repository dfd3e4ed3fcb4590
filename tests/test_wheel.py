"""What is built holds everything and works where there is nothing else."""

import os
import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "channels_groups"

JOIN = textwrap.dedent("""
    import asyncio

    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["channels", "channels_groups"],
        CHANNEL_LAYERS={
            "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}
        },
    )
    django.setup()

    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels_groups.consumers import AsyncGroupConsumerMixin
    from channels_groups.manager import get_group


    class Consumer(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
        async def connect(self):
            await self.set_group("room")
            await self.accept()


    async def main():
        coming, going = asyncio.Queue(), asyncio.Queue()
        app = Consumer.as_asgi()({"type": "websocket"}, coming.get, going.put)
        task = asyncio.create_task(app)
        await coming.put({"type": "websocket.connect"})
        await asyncio.wait_for(going.get(), 10)
        print(await get_group("room").acount())
        await coming.put({"type": "websocket.disconnect", "code": 1000})
        await task
        print(await get_group("room").acount())


    asyncio.run(main())
    """)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("src")
    # A copy: setuptools would pack what an earlier build has left in build/.
    for name in ("README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.cfg"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PACKAGE, source / PACKAGE.name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", directory, source)
    (wheel,) = directory.glob("*.whl")
    return wheel


def test_wheel_holds_every_file_of_the_package(wheel):
    files = {
        path.relative_to(PROJECT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and not _is_cache(path.relative_to(PACKAGE))
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files
    assert "channels_groups/py.typed" in packed
    assert "channels_groups/stores/lua/commit.lua" in packed


@pytest.mark.timeout(300)
def test_wheel_alone_joins_a_group(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    assert run(python, "-c", JOIN, cwd=tmp_path).split() == ["1", "0"]


def _is_cache(path):
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def run(*command, cwd=None):
    """Run a command that must succeed; return its output."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

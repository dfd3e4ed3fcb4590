"""Socket.IO on Node with its Redis adapter, from npm, where npm is there."""

import json
import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("socket.io@4.8", "@socket.io/redis-adapter@8", "redis@4")


def find_socketio() -> Path | None:
    """Install it once into a directory of the user's; return what starts it, or None.

    Code is run from there, so nobody else may write to it.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    directory = _directory()
    if not (directory / "node_modules" / "socket.io").is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", *PACKAGES]
        done = subprocess.run(command, cwd=directory, capture_output=True)
        if done.returncode:
            return None
    script = Path(__file__).with_name("socketio_server.js")
    shutil.copy(script, directory / "server.js")
    start = directory / "start"
    start.write_text(f'#!/bin/sh\nexec "{node}" "{directory}/server.js"\n')
    start.chmod(0o755)
    return start


def find_versions() -> dict[str, str | None]:
    """Return Node's version and those of the installed packages."""
    node = shutil.which("node")
    version = None
    if node:
        version = subprocess.check_output([node, "--version"], text=True).strip()
    return {"Node": version, **{f"npm {name}": _version(name) for name in _names()}}


def _version(name: str) -> str | None:
    package = _directory() / "node_modules" / name / "package.json"
    if not package.exists():
        return None
    version: str = json.loads(package.read_text())["version"]
    return version


def _names() -> list[str]:
    return [package.rpartition("@")[0] for package in PACKAGES]


def _directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "channels_groups-benchmarks", "socketio")

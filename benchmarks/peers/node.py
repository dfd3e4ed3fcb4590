"""Socket.IO on Node with its Redis adapter, from npm, where npm is there."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGES = ["socket.io@4.8", "@socket.io/redis-adapter@8", "redis@4"]


def find_socketio() -> Path | None:
    """Install it once into a directory of its own; return what starts it, or None."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    directory = Path(tempfile.gettempdir(), f"benchmarks-socketio-{os.getuid()}")
    if not (directory / "node_modules" / "socket.io").is_dir():
        directory.mkdir(exist_ok=True)
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

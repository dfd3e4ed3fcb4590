"""On what was measured: the commit, the versions and the machine."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import channels_groups
from tests.helpers.cluster import PROJECT
from tests.helpers.server import RedisServer

from .peers.node import find_versions

PACKAGES = (
    *("Django", "asgiref", "channels", "channels_redis", "redis", "hiredis"),
    *("msgpack", "uvicorn", "uvloop", "daphne", "Twisted"),
    *("websockets", "python-socketio", "picows", "prometheus_client"),
)


def describe() -> dict[str, Any]:
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
    }


def find_all_versions(redis: RedisServer) -> dict[str, str | None]:
    return {
        "channels_groups": channels_groups.__version__,
        "Python": platform.python_version(),
        "server": name_server(redis),
        **{name: _version(name) for name in PACKAGES},
        **find_versions(),
    }


def name_server(redis: RedisServer) -> str:
    """Return what the server is, and its version."""
    with redis.client() as client:
        info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = info.exists() and re.search(r"model name\s*: (.*)", info.read_text())
    return found[1] if found else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

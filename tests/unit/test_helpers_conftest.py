"""What conftest promises to every test."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


async def test_loops_are_in_debug_mode_here_and_in_child_processes():
    assert asyncio.get_running_loop().get_debug()
    assert os.environ["PYTHONASYNCIODEBUG"] == "1"


def test_what_is_missing_fails_in_ci_and_is_skipped_elsewhere(missing, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="No browser. In CI it must be"):
        missing("No browser.")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="No browser."):
        missing("No browser.")


def test_prefixes_differ(prefix, redis_url):
    assert len(prefix) == 37
    assert redis_url.startswith("redis://127.0.0.1:")


def test_every_run_tells_the_seed_of_its_storms():
    """It is new in each run, unless STORM_SEED says which."""
    given = os.environ["STORM_SEED"]
    told = [seed_told({"STORM_SEED": given})] + [seed_told({}) for _ in range(2)]
    assert told[0] == given
    assert len(set(told)) == 3


def seed_told(extra):
    """Return the seed that a run of pytest tells, whose test passes."""
    environment = {k: v for k, v in os.environ.items() if k != "STORM_SEED"}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/unit/test_exceptions.py"],
        cwd=PROJECT,
        env={**environment, **extra},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.search(r"^storm: --seed (\d+)$", ended.stdout, re.MULTILINE)[1]

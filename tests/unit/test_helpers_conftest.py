"""What conftest promises to every test."""

import asyncio
import os

import pytest


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

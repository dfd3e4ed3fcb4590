"""The benchmarks run, in a small way and for their errors: no figure is checked."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from benchmarks.__main__ import PARTS

from .helpers.cluster import PROJECT


@pytest.mark.parametrize("part", PARTS)
def test_a_quick_run_measures_something(part, tmp_path, redis_server):
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", part, "--quick", "--json", result],
        cwd=PROJECT,
        env={**os.environ, "PYTHONASYNCIODEBUG": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(result.read_text())
    tables = measured["parts"][part]["tables"]
    assert tables and all(table["rows"] for table in tables)
    versions = measured["versions"]
    assert versions["channels_redis"] == metadata.version("channels_redis")
    assert measured["rounds"] == 1


def test_a_range_needs_five_rounds():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "wire", "--rounds", "4"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "at least 5 rounds" in done.stderr

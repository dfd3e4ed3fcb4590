"""The benchmarks run, in a small way and for their errors: no figure is checked."""

import json
import os
import subprocess
import sys

import pytest

from .helpers.cluster import PROJECT

PARTS = ("join", "broadcast", "storm", "scale", "connection", "detect", "wire")


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
    tables = json.loads(result.read_text())["parts"][part]
    assert tables and all(table["rows"] for table in tables)

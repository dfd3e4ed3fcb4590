"""What the storm and the fault laboratory take for trouble in a server's log."""

import subprocess
import sys

import pytest

from tests.storm.world import unexpected

FAILING_TASK = """
import asyncio, gc

async def {name}():
    raise ConnectionError("The server is gone.")

async def main():
    asyncio.ensure_future({name}())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()

asyncio.run(main())
"""


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize(
    "name, harmless", [("_clean_receive_backup", True), ("_renew", False)]
)
def test_a_task_that_nobody_waited_for(name, harmless, debug):
    """In asyncio's debug mode the log tells where the task was made, too."""
    command = [sys.executable, "-c", FAILING_TASK.format(name=name)]
    env = {"PYTHONASYNCIODEBUG": debug}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert "never retrieved" in done.stderr
    assert (unexpected(done.stderr) == []) == harmless, unexpected(done.stderr)


def test_harmless_lines_do_not_hide_others():
    log = "INFO Deliberate\nA message from the channel layer was dropped.\nINFO fine\n"
    assert unexpected(log) == ["A message from the channel layer was dropped."]

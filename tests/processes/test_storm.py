"""A short storm over each layer, and that its oracle is able to fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.broken import FAULTS

PROJECT = Path(__file__).resolve().parents[2]

#: For each broken variant a fault of the storm that shows it, and what is found.
SHOWN_BY = {
    "lost_twice": ("kill", "left by somebody who is not in it"),
    "never_evicted": ("kill", "too many"),
    "not_left": ("calm", "and has {"),
    "not_destroyed": ("drain", "not destroyed by its last leave"),
    "deaf_member": ("calm", "heard {}, not"),
    "miscounted": ("calm", "count:"),
    "told_late": ("calm", "signalled after"),
}


@pytest.fixture(autouse=True)
def server(redis_server):
    """A storm starts its own server: find out first that there is one."""


def storm(*options):
    """Run python -m tests.storm; return its exit code and its output."""
    # Not in this process, where asyncio's debug mode slows everything down.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    command = [sys.executable, "-m", "tests.storm", *options]
    ended = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    print(ended.stdout)
    assert not ended.stderr
    return ended.returncode, ended.stdout


@pytest.mark.random_storm
@pytest.mark.timeout(240)
@pytest.mark.parametrize("layer", ["core", "pubsub"])
def test_short_storm(layer):
    """One minute with the seed that the head of pytest's output tells."""
    seed = os.environ["STORM_SEED"]
    code, output = storm("--minutes", "1", "--layer", layer, "--seed", seed)
    assert output.startswith(f"storm: --seed {seed} --layer {layer}\n")
    assert code == 0, output


@pytest.mark.storm
@pytest.mark.parametrize("broken", FAULTS)
def test_oracle_notices(broken):
    """A library that is broken on purpose does not survive one fault."""
    kind, finding = SHOWN_BY[broken]
    options = ["--faults", "1", "--clients", "60", "--patience", "5", "--seed", "1"]
    code, output = storm("--broken", broken, "--only", kind, *options)
    assert code == 1
    assert finding in output


@pytest.mark.storm
def test_same_seed_same_plan():
    """A storm can be had again."""
    from itertools import islice

    from tests.storm.plan import KINDS, make_rounds

    first, again, other = (
        list(islice(make_rounds(seed, 100, 3), 2 * len(KINDS))) for seed in (1, 1, 2)
    )
    assert first == again != other
    for half in (first[: len(KINDS)], first[len(KINDS) :]):
        assert {one.kind for one in half} == set(KINDS)

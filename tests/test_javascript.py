"""The ES modules for browsers: their tests in Node's runner, their types by tsc."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import channels_groups

ROOT = Path(__file__).parent.parent
MODULES = Path(channels_groups.__file__).parent / "static" / "channels_groups"


@pytest.fixture
def node(missing):
    """Node, which has a test runner with fake timers from version 20 on."""
    program = shutil.which("node")
    if program is None:
        missing("There is no Node.js here.")
    return program


def test_modules_in_node(node, tmp_path):
    """In a copy: what it is told of modules is no matter of the package."""
    for source in (MODULES, ROOT / "tests" / "javascript"):
        shutil.copytree(source, tmp_path / source.relative_to(ROOT))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    tests = sorted(str(path) for path in tmp_path.glob("tests/javascript/*.test.js"))
    command = [node, "--test", "--test-reporter=tap", *tests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    # Each file and each of its tests.
    assert len(re.findall(r"^ *ok ", done.stdout, re.MULTILINE)) > 10, done.stdout


def test_modules_import_nothing_from_elsewhere():
    for path in MODULES.glob("*.js"):
        imported = re.findall(r"^import .* from \"(.*)\";$", path.read_text(), re.M)
        assert all(name.startswith("./") for name in imported), path
        assert "import(" not in path.read_text().replace("* import(", "")

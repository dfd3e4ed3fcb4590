"""A page's project: its files on top of a prepared one, and its scenario in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
TIMEOUT = 100
#: No others, which would take longer to import than all that they are not used for.
PLUGINS = [
    "pytest_django.plugin",
    "pytest_asyncio.plugin",
    "channels_groups.pytest_plugin",
]


def build(directory, page, blocks, hosts):
    """Write the project of a page: ``settings.py`` is added to, others are written.

    ``settings_0.py``, ``settings_1.py`` and so on are what it is before the first and
    after each addition. ``hosts`` are replaced: names of servers in the text by
    servers that are there.
    """
    shutil.copytree(HERE / "template", directory, dirs_exist_ok=True)
    shutil.copy(HERE / "fixtures.py", directory / "conftest.py")
    for helper in ("transcripts.py", "watching.py"):
        shutil.copy(HERE / helper, directory)
    for helper in ("browser.py", "eventually.py"):
        shutil.copy(HERE.parent / "helpers" / helper, directory)
    name = Path(page).stem.lower().replace("-", "_")
    scenario = HERE / "scenarios" / f"{name}.py"
    if not scenario.exists():
        scenario = HERE / "scenarios" / "default.py"
    shutil.copy(scenario, directory / "test_page.py")
    settings = directory / "settings.py"
    shutil.copy(settings, directory / "settings_0.py")
    additions = 0
    for block in blocks:
        if block.path and block.reason is None:
            add(directory / block.path, replace(block.code, hosts))
        if block.path == "settings.py":
            additions += 1
            shutil.copy(settings, directory / f"settings_{additions}.py")
    steps = [
        [str(block), block.language, replace(block.code, hosts)]
        for block in blocks
        if block.is_step
    ]
    (directory / "steps.json").write_text(json.dumps(steps))


def add(path, code):
    """Write one file of a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if path.name == "settings.py" else "w") as file:
        file.write(f"\n{code}" if file.tell() else code)


def replace(code, hosts):
    """Put servers that are there in the place of those in the text."""
    for name, host in hosts.items():
        code = code.replace(name, host)
    return code


def environment(directory):
    """Return the environment of a project's processes."""
    return {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONPATH": str(directory),
        "PYTHONWARNINGS": "error,ignore:unclosed database:ResourceWarning",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "88",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def play(directory):
    """Run the page's scenario; return pytest's output, or fail with it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"-p{name}" for name in PLUGINS)],
        cwd=directory,
        env=environment(directory),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

"""Every example in the documentation is executed."""

from importlib.metadata import metadata
from pathlib import Path

import pytest

from ..helpers.sentinel import Sentinel
from .blocks import find_pages, read_blocks
from .project import HERE, add, build, play, replace

PAGES = find_pages()

TUTORIAL = "docs/tutorial.md"

#: Pages whose commands look at servers, but which are not about settings.
ON_REDIS = ["docs/howto/operate.md", "docs/reference/command.md"]
REDIS_LAYER = """
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            "hosts": [{"address": "redis://localhost:6379", "socket_timeout": None}],
            "capacity": 1000,
            "prefix": "operate",
        },
    },
}
"""

#: The only blocks that may say of themselves that they are not run.
NOT_RUN = ["README.md: it installs", "README.md: it installs"]


@pytest.fixture
def hosts(request, redis_server):
    """What stands in the pages for a server, and the servers that are there."""
    return {"localhost:6379": f"127.0.0.1:{redis_server.port}"}


@pytest.fixture
def many_hosts(hosts, redis_server, own_redis, tmp_path_factory):
    """Further names of servers."""
    with Sentinel(redis_server, tmp_path_factory.mktemp("sentinel")) as sentinel:
        yield {
            **hosts,
            "redis-1:6379": f"127.0.0.1:{redis_server.port}",
            "redis-2:6379": f"127.0.0.1:{own_redis.port}",
            '"sentinel-1", 26379': f'"127.0.0.1", {sentinel.port}',
        }


@pytest.mark.parametrize("page", [page for page in PAGES if page != TUTORIAL])
def test_page(page, tmp_path, request):
    blocks = read_blocks(page)
    hosts = request.getfixturevalue("many_hosts" if "deploy" in page else "hosts")
    build(tmp_path, page, blocks, hosts)
    if page in ON_REDIS:
        add(tmp_path / "settings.py", replace(REDIS_LAYER, hosts))
    if "skipped" in play(tmp_path):
        pytest.skip("There is no browser.")


def test_only_few_are_not_run():
    blocks = [block for page in PAGES for block in read_blocks(page)]
    marked = [f"{block.page}: {block.reason}" for block in blocks if block.reason]
    assert [one.partition(";")[0] for one in marked] == NOT_RUN


def test_what_is_installed_exists():
    blocks = [block for page in PAGES for block in read_blocks(page)]
    wanted = {extra for block in blocks for extra in block.extras or []}
    assert "redis" in wanted
    assert wanted <= set(metadata("channels_groups").get_all("Provides-Extra"))


def test_every_scenario_has_its_page():
    names = {Path(page).stem.lower().replace("-", "_") for page in PAGES}
    scenarios = {path.stem for path in (HERE / "scenarios").glob("*.py")}
    assert scenarios <= names | {"default"}

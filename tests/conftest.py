"""Fixtures for all tests: real servers, browsers and a cluster, all of our own."""

import os
import secrets
import signal
import uuid

import pytest

from .helpers.browser import Browser, BrowserMissing
from .helpers.cluster import Cluster
from .helpers.proxy import TcpProxy
from .helpers.server import RedisServer, ServerMissing

# Read when a loop is made, by our own code and by every process that we start;
# pytest-asyncio has a setting of its own (asyncio_debug in setup.cfg).
os.environ["PYTHONASYNCIODEBUG"] = "1"
# What a shell runs in the background ignores Ctrl-C, and so does what that starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Of the short storms: a new one in each run, which pytest-xdist's processes inherit.
os.environ.setdefault("STORM_SEED", str(secrets.randbelow(10**6)))


def pytest_report_header():
    """Tell the seed in every run: of a test that passes the log has no output."""
    return f"storm: --seed {os.environ['STORM_SEED']}"


@pytest.fixture(scope="session")
def missing():
    """Report something that this machine lacks: a failure in CI, else a skip."""

    def report(reason):
        if os.environ.get("CI"):
            pytest.fail(f"{reason} In CI it must be there.", pytrace=False)
        pytest.skip(reason)

    return report


@pytest.fixture(scope="session")
def redis_server(missing):
    """A server shared by all tests: use `prefix`, and do it no harm."""
    try:
        server = RedisServer()
    except ServerMissing as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def redis_url(redis_server):
    """The URL of the shared server."""
    return redis_server.url


@pytest.fixture
def prefix():
    """A prefix that no other test uses, for a channel layer on the shared server."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def own_redis(missing):
    """A server for this test alone, to be killed, emptied and frozen."""
    try:
        server = RedisServer()
    except ServerMissing as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def proxy(own_redis):
    """A proxy in front of `own_redis`."""
    with TcpProxy(own_redis.url) as proxy:
        yield proxy


@pytest.fixture
def cluster(own_redis, tmp_path):
    """A cluster of the demo on `own_redis`, without nodes yet."""
    with Cluster(own_redis.url, tmp_path) as cluster:
        yield cluster


@pytest.fixture
def open_browser(missing, tmp_path):
    """Return a function that opens headless browsers, closed when the test ends."""
    browsers = []

    def open_browser(size="desktop"):
        try:
            browser = Browser(tmp_path / f"browser-{len(browsers)}", size=size)
        except BrowserMissing as error:
            missing(str(error))
        browsers.append(browser)
        return browser

    yield open_browser
    for browser in browsers:
        browser.quit()

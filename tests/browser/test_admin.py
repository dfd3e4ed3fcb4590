"""The admin's pages in a real browser, over the demo's servers."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import quote

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from channels_groups.stores import DATABASE
from tests.helpers.cluster import PROJECT, Cluster
from tests.helpers.eventually import eventually
from tests.processes.conftest import lets_in

from .test_demo import FAINT, MARKUP

#: Users of the staff, by name, each with a session. One has a password.
USERS = """
import json
import django
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command

call_command("migrate", verbosity=0)
User.objects.create_superuser("privileged")
viewer = User.objects.create_user("viewer", is_staff=True)
viewer.user_permissions.set(Permission.objects.filter(codename="view_group"))
User.objects.create_user("unprivileged", "", "password", is_staff=True)
sessions = {}
for user in User.objects.all():
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    sessions[user.username] = session.session_key
print(json.dumps(sessions))
"""

GROUPS = "/admin/channels_groups/group/"
PROCESSES = "/admin/channels_groups/process/"

EXECUTOR_LEFT = "RuntimeError: CurrentThreadExecutor already quit or is broken"

#: What is drawn in the page itself; Django's own header is another matter.
FAINT_CONTENT = FAINT.replace("body *", "#content *")


@contextmanager
def serve(redis_server, directory, **env):
    """Run a daphne and a uvicorn on one database, and know its users' sessions."""
    env |= {"CHANNEL_PREFIX": directory.name, "DATABASE": str(directory / "db.sqlite3")}
    made = subprocess.run(
        [sys.executable, "-c", USERS],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "testproject.settings", **env},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        check=True,
    )
    with Cluster(redis_server.url, directory, env=env) as cluster:
        cluster.sessions = json.loads(made.stdout)
        cluster.start("daphne", "uvicorn")
        eventually(lambda: asyncio.run(lets_in(cluster.nodes[0])))
        yield cluster
        complaints = Counter(cluster.complaints())
        for node in cluster.nodes:
            # Django tells with a traceback of each page that was forbidden.
            del complaints[f"{node.name}: Traceback (most recent call last):"]
            # Django 6.1 and asgiref 3.13 tell this of some whose client goes away in
            # async_to_sync(), as any project's: its executor is left in the context.
            aborted = f"{node.name}: ERROR:    Exception in ASGI application"
            complaints[aborted] -= node.log.count(EXECUTOR_LEFT)
        assert +complaints == {}


@pytest.fixture(scope="module")
def site(redis_server, tmp_path_factory):
    with serve(redis_server, tmp_path_factory.mktemp("admin")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def database_site(redis_server, tmp_path_factory):
    """A site whose memberships are in the database, too."""
    directory = tmp_path_factory.mktemp("admin-database")
    with serve(redis_server, directory, GROUP_STORE=DATABASE) as cluster:
        yield cluster


@pytest.fixture
def visit():
    """Return a function that connects somebody to a room."""
    with ExitStack() as stack:

        def visit(node, room, name):
            visitor = stack.enter_context(connect(node.ws_url(room, name)))
            assert json.loads(visitor.recv(10))["type"] == "welcome"
            return visitor

        yield visit


@pytest.fixture
def room(request):
    """A room of the test's own, with what must be escaped, and what quoted."""
    return f"{request.node.name} / ünd 50%?#_2F {MARKUP}"


def log_in(browser, site, name, node=None):
    """Give the browser the session of a user."""
    node = node or site.nodes[0]
    browser.get(f"{node.url}/api/rooms/")
    browser.add_cookie({"name": "sessionid", "value": site.sessions[name]})
    browser.base = node.url
    return browser


def open_group(browser, room):
    """Go from the list of groups to one of them."""
    browser.get(f"{browser.base}{GROUPS}?q={quote(room, safe='')}")
    follow(browser, "#result_list tbody a")
    browser.find(".kind")


def follow(browser, css):
    """Click the first that matches, in one script: the live part may be made anew."""
    script = """const found = document.querySelector(arguments[0]);
        found?.click();
        return Boolean(found);"""
    browser.eventually(lambda: browser.execute_script(script, css), css)


def attribute(browser, css, name):
    """Wait for the first that matches, and return its attribute at that moment."""
    script = "return document.querySelector(arguments[0])?.getAttribute(arguments[1])"
    return browser.eventually(lambda: browser.execute_script(script, css, name), css)


def texts(browser, css):
    return browser.texts(f"#content {css}")


def press(browser, label):
    """Follow the link of that name, as a screen reader has it, by keyboard."""
    script = """const link = [...document.querySelectorAll("#content a")].find(
            (link) => (link.ariaLabel ?? link.textContent.trim()) === arguments[0]);
        link?.focus();
        return Boolean(link);"""
    browser.eventually(lambda: browser.execute_script(script, label), label)
    ActionChains(browser).send_keys(Keys.ENTER).perform()


def errors(browser):
    """Return what the console said of errors; Django's admin has no icon."""
    return [text for text in browser.console_errors() if "favicon.ico" not in text]


def closing(visitor):
    """Wait for the end of a connection, and return its code and reason."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            visitor.recv(10)
    return closed.value.rcvd.code, closed.value.rcvd.reason


def receive_text(visitor, text):
    while visitor.recv(10) != text:
        pass


def test_who_may_not_see_it_sees_nothing(site, open_browser, visit, room):
    visit(site.nodes[0], room, "first")
    browser = open_browser()
    for path in (GROUPS, PROCESSES, f"{GROUPS}default_2Froom/close/"):
        browser.get(site.nodes[0].url + path)
        assert "/admin/login/?next=" in browser.current_url
    browser.get(site.nodes[0].url + GROUPS)
    browser.find("#id_username").send_keys("unprivileged", Keys.TAB, "password")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.eventually(lambda: "403" in browser.find("body").text, "forbidden")
    assert room not in browser.page_source
    browser.get(f"{site.nodes[0].url}/admin/")
    browser.find("#site-name")
    assert "Connection groups" not in browser.find("body").text


def test_who_may_only_look_can_only_look(site, open_browser, visit, room):
    visit(site.nodes[0], room, "1")
    browser = log_in(open_browser(), site, "viewer")
    browser.get(f"{browser.base}/admin/")
    browser.find(".app-channels_groups a[href$='/group/']").click()
    assert texts(browser, "h1") == ["Connection groups"]
    open_group(browser, room)
    assert texts(browser, "thead th") == [
        *("USER", "CONNECTION", "INFO", "SINCE", "PROCESS")
    ]
    assert texts(browser, "tbody td:first-child") == ["1"]  # whose name is not told
    assert texts(browser, "a.button") == ["History"]


def test_groups_come_and_go_by_themselves(site, open_browser, visit, room):
    one, two = site.nodes
    browser = log_in(open_browser(), site, "privileged")
    browser.get(f"{browser.base}{GROUPS}?q={quote(room, safe='')}")
    browser.eventually(lambda: texts(browser, ".live-bar span"), "the script")
    assert texts(browser, "tbody tr") == []
    browser.execute_script("window.same = true")
    with connect(one.ws_url(room, "first")):
        browser.eventually(lambda: texts(browser, "tbody bdi") == [room], "the group")
        link = browser.find("#result_list tbody a")
        browser.execute_script("arguments[0].focus()", link)
        visit(two, f"{room}, too", "second")
        both = [room, f"{room}, too"]
        browser.eventually(lambda: sorted(texts(browser, "tbody bdi")) == both, "both")
        assert browser.switch_to.active_element == link
        visit(two, room, "third")
        browser.eventually(lambda: "2" in texts(browser, "tbody td"), "the third")
        # Its row was made anew, and has the focus as before.
        focused = "return document.activeElement.innerText"
        assert browser.execute_script(focused) == room
        news = "return document.querySelector('.live-news').textContent"
        browser.eventually(
            lambda: "groups" in browser.execute_script(news), "what is read out"
        )
    browser.eventually(lambda: texts(browser, "tbody td") == ["1", "1"], "one gone")
    assert browser.execute_script("return window.same"), "the page was not reloaded"
    assert browser.find_all("#content img, #content b") == []
    assert errors(browser) == []


def test_updates_can_be_paused_and_survive_a_loss(site, open_browser, visit, room):
    browser = log_in(open_browser(), site, "privileged", site.nodes[1])
    browser.get(f"{browser.base}{GROUPS}?q={quote(room, safe='')}")
    button = browser.find(".live-bar button")
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "true"
    assert texts(browser, ".live-bar span") == ["Paused."]
    visit(site.nodes[0], room, "first")
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0}
    browser.execute_cdp_cmd("Network.enable", {})
    network = "Network.emulateNetworkConditions"
    browser.execute_cdp_cmd(network, {**offline, "uploadThroughput": 0})
    button.send_keys(Keys.SPACE)
    lost = ["The server does not answer; trying again."]
    browser.eventually(lambda: texts(browser, ".live-bar span") == lost, "lost")
    assert texts(browser, "tbody tr") == []
    online = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd(network, {**online, "latency": 0})
    browser.eventually(lambda: texts(browser, "tbody bdi") == [room], "the group")
    assert texts(browser, ".live-bar span") == ["Updated every two seconds."]
    browser.delete_all_cookies()
    browser.eventually(lambda: texts(browser, "tbody tr") == [], "nothing any more")
    assert "You are logged out" in texts(browser, ".live-bar span")[0]


def test_a_search_among_many_groups_is_not_repeated(site, redis_server, open_browser):
    browser = log_in(open_browser(), site, "privileged")
    browser.get(f"{browser.base}{GROUPS}?q=nothing")
    bar = "Updated every two seconds."
    browser.eventually(lambda: texts(browser, ".live-bar span") == [bar], "the script")
    index = f"{site.env['CHANNEL_PREFIX']}:groups:index"
    many = {f"one of many, {n}": 1 for n in range(12_000)}
    with redis_server.client() as client:
        client.zadd(index, many)
        try:
            bar = "A search among so many groups is not repeated by itself."
            for reload in (False, True):
                if reload:
                    browser.refresh()
                browser.eventually(lambda: bar in browser.find(".live-bar").text, bar)
                assert not browser.find(".live-bar button").is_displayed()
        finally:
            client.zrem(index, *many)
    assert errors(browser) == []


@pytest.mark.parametrize("kind", ["site", "database_site"])
def test_acting_on_a_group_and_its_members(request, kind, open_browser, visit, room):
    site = request.getfixturevalue(kind)
    one, two = site.nodes
    first, second = visit(one, room, "1"), visit(two, room, MARKUP)
    browser = log_in(open_browser(), site, "privileged")
    open_group(browser, room)
    assert browser.find("h1 .name").text == room
    assert texts(browser, "tbody td:first-child") in (
        ["privileged", MARKUP],
        [MARKUP, "privileged"],
    )
    assert attribute(browser, ".user a", "href").endswith("/user/1/change/")
    rows = "[...document.querySelectorAll('#result_list tbody tr')]"
    ids = browser.execute_script(
        f"return Object.fromEntries({rows}.map(row => "
        "[row.querySelector('.user').innerText, row.dataset.key]))"
    )
    processes = browser.texts("[data-label=Process]")
    assert {text.split()[-1] for text in processes} == {str(one.pid), str(two.pid)}

    press(browser, "Send to all")
    browser.find("textarea").send_keys('{"type": "news"}')
    browser.find("input[type=submit]").send_keys(Keys.ENTER)
    receive_text(first, '{"type": "news"}')
    receive_text(second, '{"type": "news"}')
    assert "Sent to all 2 connections" in browser.find(".messagelist").text

    press(browser, f"Send to connection {ids['privileged']}")
    browser.find("textarea").send_keys("one alone")
    browser.find("input[type=submit]").send_keys(Keys.ENTER)
    receive_text(first, "one alone")

    press(browser, f"Close connection {ids[MARKUP]}")
    assert MARKUP in browser.find("h1").text
    press(browser, "No, take me back")
    press(browser, f"Close connection {ids[MARKUP]}")
    browser.find("#id_code").send_keys("1001", Keys.TAB, "enough")
    browser.find("input[type=submit]").send_keys(Keys.ENTER)
    browser.eventually(lambda: "from 3000 to 4999" in browser.find(".errorlist").text)
    browser.find("#id_code").clear()
    browser.find("#id_code").send_keys("4001", Keys.ENTER)
    assert closing(second) == (4001, "enough")
    browser.eventually(
        lambda: texts(browser, "tbody td:first-child") == ["privileged"], "one"
    )

    press(browser, "Close all")
    assert browser.find("h1").text == "Close the one connection"
    browser.find("input[type=submit]").send_keys(Keys.ENTER)
    assert closing(first)[0] == 1000
    browser.eventually(lambda: "Nobody is in the group" in browser.find(".live").text)

    press(browser, "History")
    done = browser.texts("#change-history td:nth-child(3)")
    assert done == [
        'Sent to all 2 connections: {"type": "news"}',
        f"Sent to connection {ids['privileged']} of 1: one alone",
        f"Closed connection {ids[MARKUP]} of {MARKUP} with code 4001: enough",
        "Closed the one connection with code 1000",
    ]
    assert browser.execute_script("return window.wrong") is None
    browser.get(f"{browser.base}/admin/")
    browser.find("#recent-actions-module a").click()
    assert browser.find("h1 .name").text == room
    assert browser.find_all("#content img, #content b") == []


def test_without_javascript(site, open_browser, visit, room):
    visit(site.nodes[0], room, "first")
    browser = log_in(open_browser(), site, "privileged")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(f"{browser.base}{GROUPS}?q={quote(room, safe='')}")
    browser.find("#result_list tbody a").click()
    assert browser.find("h1 .name").text == room
    assert "Reload the page" in browser.find("noscript").text
    assert not browser.find(".live-bar").is_displayed()
    browser.find(".actions-on-all .dangerous").click()
    browser.find("input[type=submit]").click()
    assert "Closed the one connection" in browser.find(".messagelist").text


@pytest.mark.parametrize("path", [GROUPS, PROCESSES, f"{GROUPS}default_2Fx/change/"])
def test_who_goes_away_while_a_page_is_made(site, path):
    """It is the site's fixture that looks for complaints."""
    cookie = f"Cookie: sessionid={site.sessions['privileged']}"
    request = f"GET {path}?_live=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n{cookie}\r\n\r\n"
    for node in site.nodes:
        for number in range(20):
            with socket.create_connection(("127.0.0.1", node.port)) as client:
                client.sendall(request.encode())
                # Each at another moment of its being made.
                client.settimeout(0.002 * number + 0.001)
                with suppress(TimeoutError):
                    client.recv(1)
        node.api("rooms/")


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_it_can_be_seen_and_reached(site, open_browser, visit, room, size):
    for number in range(3):
        visit(site.nodes[number % 2], room, ["1", "x" * 100, MARKUP][number])
    browser = log_in(open_browser(size), site, "privileged")
    open_group(browser, room)
    group = browser.current_url
    pages = {
        "groups": browser.base + GROUPS,
        "group": group,
        "close": group.replace("/change/", "/close/"),
        "send": group.replace("/change/", "/send/"),
        "history": group.replace("/change/", "/history/"),
        "processes": browser.base + PROCESSES,
    }
    for scheme in ("light", "dark"):
        emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
        for name, url in pages.items():
            browser.get(url)
            check_page(browser, f"{name}-{size}-{scheme}")
    browser.find(".plot polyline")
    assert "Members: " in attribute(browser, ".plot svg", "aria-label")
    assert errors(browser) == []


def check_page(browser, name):
    """Check width, contrast, headings, labels, names and focus of what is seen now."""
    browser.find("#content h1")
    browser.screenshot(name)
    wide = "return document.documentElement.scrollWidth - innerWidth"
    assert browser.execute_script(wide) <= 0, "nothing is scrolled sideways"
    assert browser.execute_script(FAINT_CONTENT) == [], name
    assert len(browser.find_all("h1")) <= 2  # of the site, and of the page
    unlabelled = """const css = "#content :is(input, textarea)";
        return [...document.querySelectorAll(css)]
        .filter((node) => !["hidden", "submit"].includes(node.type))
        .filter((node) => !node.labels.length).map((node) => node.outerHTML)"""
    assert browser.execute_script(unlabelled) == []
    unnamed = """return [...document.querySelectorAll("#content :is(a, button, table)")]
        .filter((node) => !(node.ariaLabel ?? node.textContent).trim()).length"""
    assert browser.execute_script(unnamed) == 0
    assert browser.find_all("#content th:not([scope])") == []
    ids = "return [...document.querySelectorAll('[id]')].map((node) => node.id)"
    found = browser.execute_script(ids)
    assert len(found) == len(set(found))
    script = """const node = document.querySelector("#content a, #content button");
        node?.focus({ focusVisible: true });
        return node ? getComputedStyle(node).outlineStyle : "solid";"""
    if "history" not in name:  # which is Django's own
        assert browser.execute_script(script) == "solid"

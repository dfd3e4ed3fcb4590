"""The demo's pages in a real browser, over two server processes."""

import asyncio
from urllib.parse import quote

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys

from tests.helpers.cluster import Cluster
from tests.helpers.eventually import eventually
from tests.processes.conftest import lets_in

MARKUP = '<img src="/no" onerror="window.wrong = 1"><b>bold</b>'

# What JavaScript's encodeURIComponent leaves as it is.
SAFE = "-_.!~*'()"

# Every visible text whose contrast with what is behind it is below 4.5.
FAINT = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
  .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const rgb = channels(getComputedStyle(node).backgroundColor);
    if ((rgb[3] ?? 1) > 0.5) return rgb;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll("body *")].filter((node) =>
  node.checkVisibility() && [...node.childNodes].some(
    (child) => child.nodeType === 3 && child.data.trim())
).filter((node) => {
  const [one, other] = [channels(getComputedStyle(node).color), behind(node)]
    .map(luminance).sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05) < 4.5;
}).map((node) => node.outerHTML);
"""


@pytest.fixture(scope="module")
def cluster(redis_server, tmp_path_factory):
    """A daphne and a uvicorn."""
    env = {"CHANNEL_PREFIX": "browser"}
    directory = tmp_path_factory.mktemp("browser")
    with Cluster(redis_server.url, directory, env=env) as cluster:
        cluster.start("daphne", "uvicorn")
        eventually(lambda: asyncio.run(lets_in(cluster.nodes[0])))
        yield cluster


@pytest.fixture
def room(request):
    """A room of the test's own, with everything that an address must encode."""
    return f"{request.node.name} / ünd 50%?#"


def enter(browser, node, room, name):
    """Open a room's page, and return the page when it is in."""
    browser.get(f"{node.url}/rooms/{quote(room, safe='')}/?name={quote(name)}")
    browser.find('#status[data-state="open"]')
    return browser


def names(browser):
    """Return the names of who is here; a phone shows that list on demand only."""
    script = """return [...document.querySelectorAll(".member-name bdi")]
        .map((name) => name.textContent)"""
    return browser.execute_script(script)


def say(browser, text):
    browser.find("#text").send_keys(text, Keys.ENTER)


def press(browser, label):
    """Press the button that a screen reader calls so."""

    def click():
        browser.find(f'button[aria-label="{label}"]').click()
        return True

    # Its row is made anew when its process becomes known.
    eventually(click, ignoring=(StaleElementReferenceException,))


def test_from_the_lobby_into_a_talk(cluster, open_browser, room):
    one, two = cluster.nodes
    first, second = open_browser(), open_browser("phone")
    second.get(two.url)
    first.get(one.url)

    # By keyboard alone: the name has the first stop, the room the next.
    first.find("body").send_keys(Keys.TAB)
    keys(first, "first", Keys.TAB, room, Keys.ENTER)
    first.find('#status[data-state="open"]')
    assert first.find("h1").text == room
    assert names(first) == ["first"]

    # The other one sees the room appear, and follows the link.
    link = second.eventually(lambda: link_to(second, room), "the room in the lobby")
    second.eventually(lambda: "1 person" in link.text)
    second.find("#name").send_keys("second")
    link.click()
    second.find('#status[data-state="open"]')
    first.eventually(lambda: names(first) == ["first", "second"], "the second one")
    processes = [one.name, two.name]
    first.eventually(lambda: shown_processes(first) == processes, "both processes")
    assert f"On process {two.name}" in second.find("#status").text

    say(first, "good evening")
    second.eventually(lambda: "good evening" in texts(second))
    assert "second joined, 2 people here" in first.texts(".notice.join")
    second.find(".back").click()
    first.eventually(lambda: "second left, 1 person here" in first.texts(".notice"))
    assert names(first) == ["first"]
    assert first.find("#count").text == "1"
    assert (first.console_errors(), second.console_errors()) == ([], [])


def test_the_lobby_goes_dark_again(cluster, open_browser, room):
    lobby, visitor = open_browser(), open_browser()
    lobby.get(cluster.nodes[0].url)
    enter(visitor, cluster.nodes[1], room, "first")
    lobby.eventually(lambda: link_to(lobby, room), "the room")
    visitor.get("about:blank")
    lobby.eventually(lambda: not link_to(lobby, room), "no room")
    assert lobby.console_errors() == []


def test_whisper_move_and_kick(cluster, open_browser, room):
    first = enter(open_browser(), cluster.nodes[0], room, "first")
    second = enter(open_browser(), cluster.nodes[1], room, "second")
    press(first, "Whisper to second")
    say(first, "psst")
    second.eventually(lambda: "psst" in texts(second))
    assert "whispers to you" in second.find(".entry.whisper").text
    assert "whispered to second" in first.find(".entry.whisper").text
    first.find("#text").send_keys(Keys.ESCAPE)
    say(first, "to all")
    second.eventually(lambda: texts(second) == ["psst", "to all"])

    second.find("#destination").send_keys("closed-door", Keys.ENTER)
    second.eventually(lambda: second.texts("#move-problem") == ["That room is closed."])
    assert names(first) == ["first", "second"]
    elsewhere = f"not {room}"
    second.find("#destination").clear()
    second.find("#destination").send_keys(elsewhere, Keys.ENTER)
    second.eventually(lambda: second.find("h1").text == elsewhere)
    assert quote(elsewhere, safe="") in second.current_url
    first.eventually(lambda: names(first) == ["first"], "the second one gone")

    second.find("#leave").click()
    second.eventually(lambda: second.texts("#gate-title") == ["You are in no room"])
    second.find("#gate-retry").click()
    second.eventually(lambda: names(second) == ["second"], "back")
    second.find("#destination").send_keys(room, Keys.ENTER)
    press(first, "Kick second")
    second.eventually(lambda: "You were asked to leave" in second.texts("h2"))
    first.eventually(lambda: names(first) == ["first"], "the second one kicked")
    second.find("#gate-retry").click()
    first.eventually(lambda: names(first) == ["first", "second"], "and back")
    assert (first.console_errors(), second.console_errors()) == ([], [])


def test_text_is_never_markup(cluster, open_browser):
    first = enter(open_browser(), cluster.nodes[0], MARKUP, MARKUP)
    second = enter(open_browser(), cluster.nodes[1], MARKUP, "__proto__")
    lobby = open_browser()
    lobby.get(cluster.nodes[0].url)
    say(first, MARKUP)
    second.eventually(lambda: MARKUP in texts(second))
    press(second, f"Whisper to {MARKUP}".replace('"', '\\"'))
    say(second, MARKUP)
    first.eventually(lambda: texts(first) == [MARKUP, MARKUP])
    assert names(second) == ["__proto__", MARKUP]
    first.eventually(lambda: names(first) == [MARKUP, "__proto__"])
    lobby.eventually(lambda: link_to(lobby, MARKUP), "the room")
    for browser in (first, second, lobby):
        assert browser.find_all("img, b") == []
        assert browser.execute_script("return window.wrong") is None
        assert browser.console_errors() == []


def test_a_room_that_lets_nobody_in(cluster, open_browser, room):
    browser = open_browser()
    browser.get(f"{cluster.nodes[0].url}/rooms/closed-door/?name=first")
    closed = "This room is closed or full"
    browser.eventually(lambda: browser.texts("#gate-title") == [closed])
    browser.find("#destination").send_keys(room, Keys.ENTER)
    browser.eventually(lambda: names(browser) == ["first"], "the other room")
    long = "x" * 1001
    browser.get(f"{cluster.nodes[0].url}/rooms/{long}/?name=first")
    browser.eventually(lambda: "There can be no such room" in browser.texts("h2"))


def test_it_asks_for_a_name(cluster, open_browser, room):
    browser = open_browser("phone")
    browser.get(f"{cluster.nodes[0].url}/rooms/{quote(room, safe='')}/")
    assert browser.switch_to.active_element.get_attribute("id") == "name"
    keys(browser, "first", Keys.ENTER)
    browser.eventually(lambda: names(browser) == ["first"], "in the room")
    browser.refresh()
    browser.eventually(lambda: names(browser) == ["first"], "in it again")


def test_it_comes_back_by_itself(cluster, open_browser, room):
    (node,) = cluster.start("daphne")
    browser = enter(open_browser(), node, room, "first")
    other = enter(open_browser(), cluster.nodes[0], room, "second")
    node.kill()
    browser.find('#status[data-state="waiting"]')
    other.eventually(lambda: names(other) == ["second"], "the first one lost")
    node.start()
    node.wait_ready()
    browser.eventually(lambda: names(browser) == ["first", "second"], timeout=30)
    other.eventually(lambda: names(other) == ["second", "first"], "and found")
    say(browser, "where was I?")
    other.eventually(lambda: "where was I?" in texts(other))


@pytest.mark.parametrize("size", ["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_seen_and_reached(cluster, open_browser, room, size, scheme):
    browser = open_browser(size)
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    other = enter(open_browser(), cluster.nodes[1], room, "other" * 10)
    enter(browser, cluster.nodes[0], room, "first")
    say(other, "a" * 300)
    browser.eventually(lambda: "a" * 300 in texts(browser))
    check_page(browser, f"room-{size}-{scheme}")
    if size == "phone":
        browser.find("#people-button").click()
        assert browser.find("#people").is_displayed()
        check_page(browser, f"people-{size}-{scheme}")
    browser.get(cluster.nodes[0].url)
    browser.eventually(lambda: link_to(browser, room), "the room")
    check_page(browser, f"lobby-{size}-{scheme}")


def check_page(browser, name):
    """Check width, contrast, focus, labels and origins of what is seen now."""
    browser.screenshot(name)
    wide = "return document.documentElement.scrollWidth - innerWidth"
    assert browser.execute_script(wide) <= 0, "nothing is scrolled sideways"
    assert browser.execute_script(FAINT) == []
    unlabelled = "input:not([id]), textarea:not([id]), html:not([lang])"
    assert browser.find_all(unlabelled) == []
    for field in browser.find_all("input, textarea"):
        assert browser.find_all(f'label[for="{field.get_attribute("id")}"]')
    keys(browser, Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.value_of_css_property("outline-style") == "solid"
    loaded = "return performance.getEntriesByType('resource').map((one) => one.name)"
    origin = browser.execute_script("return location.origin")
    assert all(url.startswith(origin) for url in browser.execute_script(loaded))


def keys(browser, *texts):
    """Type into whatever has the focus, one after the other."""
    for text in texts:
        browser.switch_to.active_element.send_keys(text)


def link_to(browser, room):
    """Return the lobby's link to a room, or None."""
    script = """return [...document.querySelectorAll(".floor a")]
        .find((link) => link.getAttribute("href") === arguments[0]) ?? null"""
    return browser.execute_script(script, f"/rooms/{quote(room, safe=SAFE)}/")


def texts(browser):
    """Return what was said and whispered, as it is shown."""
    return browser.texts(".entry-text")


def shown_processes(browser):
    """Return the processes that the members are on, as they are shown."""
    return [text.split()[-1] for text in browser.texts(".member-process")]

"""The browser's side of groups in a real browser: crashes, sleep, tabs, reloads."""

import asyncio
from urllib.parse import quote

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.eventually import eventually
from tests.helpers.proxy import TcpProxy
from tests.processes.conftest import lets_in

from .test_demo import enter, names

# A module of the page's own would keep its socket from us: this one hears of it.
SOCKETS = """
window.sockets = [];
const Real = window.WebSocket;
window.WebSocket = class extends Real {
  constructor(...args) { super(...args); window.sockets.push(this); }
};
"""


@pytest.fixture(scope="module")
def cluster(redis_server, tmp_path_factory):
    env = {"CHANNEL_PREFIX": "live", "GROUP_GRACE": "5", "GROUP_LEASE": "3"}
    directory = tmp_path_factory.mktemp("live")
    with Cluster(redis_server.url, directory, env=env) as cluster:
        cluster.start("uvicorn", "daphne")
        eventually(lambda: asyncio.run(lets_in(cluster.nodes[0])))
        yield cluster


@pytest.fixture
def room(request):
    return f"{request.node.name} / 50%?#"


def notices(browser):
    return browser.texts(".notice:is(.join, .leave)")


def test_a_killed_server_comes_back_and_all_is_right_again(cluster, open_browser, room):
    one, two = cluster.nodes
    ann = enter(open_browser(), one, room, "ann")
    bob = enter(open_browser("phone"), two, room, "bob")
    ann.eventually(lambda: names(ann) == ["ann", "bob"])
    one.kill()
    ann.find('#status[data-state="waiting"]')
    bob.eventually(lambda: names(bob) == ["bob"], timeout=20)
    one.restart()
    ann.eventually(lambda: names(ann) == ["ann", "bob"], timeout=40)
    bob.eventually(lambda: names(bob) == ["bob", "ann"], timeout=20)
    assert ann.find("#count").text == "2"
    assert notices(bob) == ["ann left, 1 person here", "ann joined, 2 people here"]


def test_a_laptop_that_slept_finds_out_that_it_is_not_connected(
    cluster, open_browser, room
):
    """Its socket is dead and does not know; others have come and gone meanwhile."""
    one, two = cluster.nodes
    ann, bob = open_browser(), open_browser("phone")
    ann.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SOCKETS})
    enter(ann, one, room, "ann")
    enter(bob, two, room, "bob")
    ann.eventually(lambda: names(ann) == ["ann", "bob"])
    # Nothing arrives from now on, and no close either.
    ann.execute_script("""for (const socket of window.sockets) {
            socket.onmessage = socket.onclose = null;
            socket.send = () => {};
        }""")
    bob.find(".back").click()
    bob.find("#rooms")
    ann.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
    ann.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    ann.execute_script("""const now = Date.now;
        Date.now = () => now.call(Date) + 3600000;""")
    ann.eventually(lambda: names(ann) == ["ann"], timeout=40)
    ann.find('#status[data-state="open"]')
    assert ann.find("#count").text == "1"


def test_three_tabs_of_one_user(cluster, open_browser, room):
    one, two = cluster.nodes
    bob = enter(open_browser(), two, room, "bob")
    ann = open_browser()
    tabs = []
    for node in (one, two, one):
        if tabs:
            ann.switch_to.new_window("tab")
        enter(ann, node, room, "ann")
        tabs.append(ann.current_window_handle)
    bob.eventually(lambda: names(bob) == ["bob", "ann", "ann", "ann"])
    told = one.room(room)
    assert (told["count"], told["users"]) == (4, 2)
    ann.close()
    bob.eventually(lambda: names(bob) == ["bob", "ann", "ann"], timeout=30)
    for tab in tabs[:2]:
        ann.switch_to.window(tab)
        ann.eventually(lambda: sorted(names(ann)) == ["ann", "ann", "bob"], timeout=30)


def test_reloads_are_no_leave_and_typing_is_seen(cluster, open_browser, room):
    """Whichever process the new page meets, and whether the old one's end was seen."""
    one, two = cluster.nodes
    ann = enter(open_browser(), one, room, "ann")
    with TcpProxy(one.url, two.url) as balancer:
        bob = enter(open_browser("phone"), balancer, room, "bob")
        ann.eventually(lambda: names(ann) == ["ann", "bob"])
        before, told = notices(ann), events(cluster, room)
        met = set()
        for _ in range(12):
            bob.refresh()
            met.add(bob.find('#status[data-state="open"]').text)
            assert names(bob) == ["bob", "ann"]
        assert len(met) == 2
        assert events(cluster, room) == told
        type_to_all(ann, bob)
    assert names(ann) == ["ann", "bob"]
    assert notices(ann) == before


def events(cluster, room):
    """Return the signals of the room; a former test's may still come in."""
    return [event for event in cluster.events() if event["group"] == room]


def type_to_all(ann, bob):
    bob.find("#text").send_keys("hel")
    ann.eventually(lambda: ann.texts("#typing") == ["bob is typing"])
    bob.find("#text").send_keys("lo\n")
    ann.eventually(lambda: ann.texts("#typing") == [""])
    assert bob.texts("#typing") == [""]


def test_the_lobby_counts_by_the_tag(cluster, open_browser):
    one, two = cluster.nodes
    lobby = open_browser()
    lobby.get(one.url)
    assert lobby.texts(".favourite-count") == ["0 here", "0 here", "0 here"]
    ann = open_browser("phone")
    enter(ann, two, "Kitchen", "ann")
    wanted = ["0 here", "1 here", "0 here"]
    lobby.eventually(lambda: lobby.texts(".favourite-count") == wanted)
    lobby.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    lobby.refresh()
    found = [one.text for one in lobby.find_all(".favourite-count")]
    assert found == wanted
    assert quote("Kitchen") in ann.current_url

"""{% group_count %}: what a template renders, and the socket that goes on with it."""

import asyncio
import re

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.core import signing
from django.template import Context, Template, engines
from django.test import override_settings

from channels_groups.counts import SALT, Board, make_token, read_token
from channels_groups.exceptions import StoreUnavailable
from channels_groups.manager import GroupManager, get_group, get_group_manager
from channels_groups.routing import websocket_urlpatterns

from ..helpers.eventually import aeventually
from .chats import AsyncChat, async_only, in_memory

SPAN = re.compile(
    r'<span class="group-count" data-group-count="([^"]*)" '
    r'data-group-socket="([^"]*)">([^<]*)</span>'
)
SCRIPT = '<script type="module" src="/static/channels_groups/counts.js"></script>'


def render(source, **context):
    return Template("{% load channels_groups %}" + source).render(Context(context))


@pytest.fixture
async def open_page(layer):
    """Return a function that opens a page's socket."""
    pages = []

    async def open_page(*tokens, path="/groups/counts/"):
        page = WebsocketCommunicator(URLRouter(websocket_urlpatterns), path)
        pages.append(page)
        assert (await page.connect())[0]
        await watch(page, *tokens)
        return page

    yield open_page
    for page in pages:
        await page.disconnect()


async def watch(page, *tokens, list=1):
    await page.send_json_to({"type": "group.counts", "list": list, "tokens": tokens})


async def counts(page):
    """Return the next message's counts."""
    message = await page.receive_json_from(timeout=10)
    assert message.pop("type") == "group.counts"
    return message


def tokens(*names):
    return [make_token(get_group(name)) for name in names]


@in_memory
async def test_a_template_shows_the_count_as_of_now(chat, connect):
    await connect(chat, "room")
    await connect(chat, "room")
    html = render("{% group_count 'room' %} of {% group_count name %}", name="none")
    (room, path, count), (none, *_, nobody) = SPAN.findall(html)
    assert (count, nobody, path) == ("2", "0", "/groups/counts/")
    assert read_token(room) == get_group("room")
    assert read_token(none) == get_group("none")
    assert html.count(SCRIPT) == 1
    # As a sync view does.
    assert await asyncio.to_thread(render, "{% group_count 'room' %}") in html


@in_memory
async def test_what_it_shows_is_escaped(layer):
    name = '"><b onclick="alert(1)">&amp;'
    for source in (
        "{% group_count name %}",
        "{% autoescape off %}{% group_count name %}{% endautoescape %}",
        "{% group_count name as count %}{{ count }}",
    ):
        html = render(source, name=name)
        [(token, *_)] = SPAN.findall(html)
        assert read_token(token) == get_group(name)
        assert "<b" not in html


@in_memory
async def test_a_page_brings_the_script_once_even_in_included_templates(layer):
    included = Template("{% load channels_groups %}{% group_count 'a' %}")
    source = "{% for _ in 'xy' %}{% include it %}{% endfor %}{% group_count 'b' %}"
    html = render(source, it=included)
    assert (len(SPAN.findall(html)), html.count(SCRIPT)) == (3, 1)
    assert render("{% group_count 'b' %}").count(SCRIPT) == 1
    assert (
        engines["django"]
        .from_string("{% load channels_groups %}{% group_count 'b' %}")
        .render({})
        .count(SCRIPT)
        == 1
    )


@in_memory
async def test_a_store_that_does_not_answer_leaves_a_dash(layer, monkeypatch):
    async def fail(group):
        raise StoreUnavailable

    monkeypatch.setattr(get_group_manager().store, "count", fail)
    [(token, _, count)] = SPAN.findall(render("{% group_count 'room' %}"))
    assert (read_token(token), count) == (get_group("room"), "–")
    for bad in ("", 7):
        with pytest.raises((TypeError, ValueError)):
            render("{% group_count name %}", name=bad)


@async_only
async def test_a_page_is_told_of_all_its_counts_in_one_message(connect, open_page):
    ann = await connect(AsyncChat, "a")
    page = await open_page(*tokens("a", "b", "a"))
    assert await counts(page) == {"list": 1, "counts": {"0": 1, "1": 0, "2": 1}}
    await connect(AsyncChat, "b")
    await ann.disconnect()
    seen = {}
    while seen != {"0": 0, "1": 1, "2": 0}:
        seen.update((await counts(page))["counts"])
    await watch(page, *tokens("b"), list=2)
    assert await counts(page) == {"list": 2, "counts": {"0": 1}}
    await page.send_json_to({"type": "group.ping"})
    assert await page.receive_json_from() == {"type": "group.pong"}
    await page.disconnect()
    assert not Board.of_this_loop()._watched


@async_only
async def test_a_page_is_told_at_most_once_a_second(connect, open_page):
    ann = await connect(AsyncChat)
    page = await open_page(*tokens("room"))
    assert (await counts(page))["counts"] == {"0": 0}
    now = asyncio.get_running_loop().time
    began = now()
    while now() < began + 2.5:
        await ann.set_group("room")
        await asyncio.sleep(0.02)
        await ann.set_group(None)
        await asyncio.sleep(0.02)
    assert page.output_queue.qsize() <= now() - began + 1
    await ann.set_group("room")
    seen = {}
    while seen != {"0": 1}:
        seen = (await counts(page))["counts"]


@in_memory
async def test_a_page_can_watch_what_a_template_rendered_and_nothing_else(
    chat, connect, open_page
):
    await connect(chat, "room")
    [good] = tokens("room")
    forged = [good + "x", good[:-1], "room", '["default","room"]', 7, None, [], {}]
    page = await open_page(*forged, good)
    assert (await counts(page))["counts"] == {str(len(forged)): 1}
    for nonsense in ("no JSON", "[]", "7", '{"type":"group.counts","tokens":7}'):
        await page.send_to(text_data=nonsense)
    await page.send_to(bytes_data=b"nor this")
    await watch(page, good, list=3)
    assert await counts(page) == {"list": 3, "counts": {"0": 1}}
    with override_settings(SECRET_KEY="another"):
        assert read_token(good) is None


class Discreet(GroupManager):
    def may_count(self, group, scope):
        return scope["path"] == "/groups/counts/" and group.name != "secret"


@in_memory
async def test_the_manager_has_the_last_word(chat, connect, open_page, configure):
    configure(MANAGER=f"{__name__}.Discreet")
    await connect(chat, "secret")
    page = await open_page(*tokens("secret", "room"))
    assert (await counts(page))["counts"] == {"1": 0}


@async_only
async def test_a_group_is_read_once_whoever_watches(connect, open_page, monkeypatch):
    store = get_group_manager().store
    asked = []
    summaries = store.summaries

    async def spy(shard, groups):
        asked.append(list(groups))
        return await summaries(shard, groups)

    monkeypatch.setattr(store, "summaries", spy)
    monkeypatch.setattr("channels_groups.counts.INTERVAL", 0.2)
    pages = [await open_page(*tokens("a", "b")) for _ in range(5)]
    for page in pages:
        assert set((await counts(page))["counts"].values()) == {0}
    assert all(sorted(groups) == ["a", "b"] for groups in asked)
    await connect(AsyncChat, "a")
    for page in pages:
        assert (await counts(page))["counts"] == {"0": 1}
    [await page.disconnect() for page in pages]
    assert "read groups' counts" not in {
        task.get_name() for task in asyncio.all_tasks()
    }


@in_memory
async def test_a_token_of_an_alias_that_is_gone_is_no_token(chat, connect, open_page):
    """Nor does it stop the others' counts."""
    layers = {**settings.CHANNEL_LAYERS, "old": settings.CHANNEL_LAYERS["default"]}
    with override_settings(CHANNEL_LAYERS=layers):
        gone = make_token(get_group("room", "old"))
        assert read_token(gone) == get_group("room", "old")
    assert read_token(gone) is None
    for content in (["default"], ["default", ""], ["default", 7], [{}, "room"], 7):
        assert read_token(signing.Signer(salt=SALT).sign_object(content)) is None
    await connect(chat, "room")
    page = await open_page(gone, *tokens("room"))
    assert (await counts(page))["counts"] == {"1": 1}


@in_memory
async def test_what_nobody_foresaw_does_not_end_the_reading(
    chat, connect, open_page, monkeypatch, caplog
):
    monkeypatch.setattr("channels_groups.counts.INTERVAL", 0.1)
    store = get_group_manager().store
    summaries = store.summaries
    monkeypatch.setattr(store, "summaries", lambda shard, groups: 1 / 0)
    await connect(chat, "room")
    page = await open_page(*tokens("room"))
    await aeventually(lambda: len(caplog.records) > 1)
    assert {one.getMessage() for one in caplog.records} == {
        "Counts were not read; it tries again."
    }
    monkeypatch.setattr(store, "summaries", summaries)
    assert (await counts(page))["counts"] == {"0": 1}


@in_memory
async def test_an_outage_leaves_what_was_known(chat, connect, open_page, monkeypatch):
    monkeypatch.setattr("channels_groups.counts.INTERVAL", 0.1)
    store = get_group_manager().store
    summaries = store.summaries
    failures = []

    async def fail(shard, groups):
        failures.append(groups)
        raise StoreUnavailable

    await connect(chat, "room")
    page = await open_page(*tokens("room"))
    assert (await counts(page))["counts"] == {"0": 1}
    monkeypatch.setattr(store, "summaries", fail)
    await connect(chat, "room")
    await aeventually(lambda: len(failures) > 2)
    assert await page.receive_nothing()
    monkeypatch.setattr(store, "summaries", summaries)
    assert (await counts(page))["counts"] == {"0": 2}

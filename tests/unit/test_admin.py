"""The admin: who may see and do what, over a store that is written to directly."""

import asyncio
import io
import re
from datetime import datetime, timezone
from html import unescape
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client
from django.urls import reverse

from channels_groups import listing
from channels_groups.admin import chart, pages
from channels_groups.database.store import DatabaseStore
from channels_groups.exceptions import StoreUnavailable
from channels_groups.listing import SIZE
from channels_groups.manager import get_group_manager
from channels_groups.models import Group
from channels_groups.names import own_name
from channels_groups.stores import DATABASE
from channels_groups.stores.base import Join, Leave

from ..helpers import databases, layers
from ..helpers.database_servers import PostgreSQLServer
from ..stores.conftest import serve
from ..stores.lab import DatabaseLab, Lab, member

pytestmark = pytest.mark.django_db(databases=["default", "groups"])

GROUPS = "/admin/channels_groups/group/"
PROCESSES = "/admin/channels_groups/process/"
MARKUP = "<script>alert('1')</script> & \"2\""
NAMES = [
    *(MARKUP, "a/b", "../..", "?q=1#x", "50%", "%2F", "_2F", "ünd 😀", " ", "a\nb"),
    *("a\rb", "\0", "a:b", "connection", "change", "x" * 1000, "\\", "{{ x }}", "+ +"),
]


class Books:
    """What the store holds, written into it past all connections."""

    def __init__(self, manager, database):
        self.manager = manager
        self.store = manager.store
        uses_database = isinstance(self.store, DatabaseStore)
        self.lab = (
            DatabaseLab(self.store, database) if uses_database else Lab(self.store)
        )
        self.store.attach()
        self.node = self.new_node()

    def new_node(self):
        return async_to_sync(self.lab.node)()

    def join(self, *pairs, node=None):
        """Make (group, member) so."""
        joins = [Join(group, one) for group, one in pairs]
        async_to_sync((node or self.node).commit)(*joins)

    def count_rows(self, monkeypatch):
        """Return a list of how many rows the store gives from now on, call by call."""
        given = []

        def spy(name, rows):
            method = getattr(self.store, name)

            async def counted(*args, **kwargs):
                answer = await method(*args, **kwargs)
                given.append(len(rows(answer)))
                return answer

            monkeypatch.setattr(self.store, name, counted)

        spy("groups", lambda answer: answer[0])
        spy("ranking", lambda answer: answer)
        spy("members", lambda answer: answer[0])
        spy("node_members", lambda answer: answer[0])
        return given

    def listen(self, group):
        """Return a channel that hears what is sent to all of a group."""
        channel = async_to_sync(self.manager.channel_layer.new_channel)()
        add = async_to_sync(self.manager.channel_layer.group_add)
        add(own_name(group), channel)
        return channel

    def heard(self, channel):
        """Return what was sent to a channel."""
        waiting = self.manager.channel_layer.channels.get(channel)
        return [] if waiting is None or waiting.empty() else [waiting.get_nowait()[1]]


@pytest.fixture(scope="module", autouse=True)
def groups_database(django_db_setup, django_db_blocker, tmp_path_factory):
    """A database for the store, which each test leaves as it was."""
    entry = databases.sqlite(tmp_path_factory.mktemp("groups"))
    with django_db_blocker.unblock():
        with databases.Database("groups", entry) as database:
            yield database
            connections["groups"].close()
            del connections["groups"]


@pytest.fixture(scope="module")
def postgresql(missing, django_db_blocker):
    """A database that takes no NUL."""
    with serve(PostgreSQLServer, missing, django_db_blocker) as database:
        yield database


@pytest.fixture
def open_books(groups_database):
    """Return a function that returns what a layer's store holds."""
    opened = []

    def open_books(alias="default"):
        opened.append(Books(get_group_manager(alias), groups_database))
        return opened[-1]

    yield open_books
    for books in opened:
        async_to_sync(books.lab.close)()


@pytest.fixture(params=["memory", "database"])
def books(settings, request, groups_database, open_books):
    settings.CHANNELS_GROUPS = {}
    settings.CHANNEL_LAYERS = layers.memory_layer()
    if request.param == "database":
        settings.CHANNELS_GROUPS = {"default": {"STORE": DATABASE}}
        settings.DATABASE_ROUTERS = [groups_database.router]
    return open_books()


@pytest.fixture
def admin_user():
    """Somebody who may do everything; without a password, which takes long to hash."""
    return User.objects.create_superuser("admin")


@pytest.fixture
def log_in(client):
    """Return a function that logs in somebody of the staff with some permissions."""

    def log_in(*codenames, **fields):
        user = User.objects.create_user("somebody", is_staff=True, **fields)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


def page(name, *parts, alias="default"):
    """Return the address of a group's page."""
    key = Group.of(alias, name).key
    where = "connection_action" if len(parts) == 2 else "action"
    if parts in [(), ("history",)]:
        where, parts = (*parts, "change")[0], ()
    args = [quote(part) for part in (key, *parts)]
    return reverse(f"admin:channels_groups_group_{where}", args=args)


def text_of(response):
    """Return what is to be read in the page's main part, without its markup."""
    html = response.content.decode().partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def names_in(response):
    """Return the names of the listed groups."""
    found = re.findall(r'<a href="[^"]*"><bdi class="name">(.*?)</bdi>', html(response))
    return [unescape(name) for name in found]


def ids_in(response):
    """Return the ids of the listed connections."""
    return re.findall(r"<code>(m\d+|x)</code>", html(response))


def html(response):
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def link_in(response, text):
    """Return where the link with a text leads."""
    found = re.search(rf'<a href="([^"]*)"[^>]*>{text}</a>', html(response))
    return found and unescape(found[1])


# Who may what

ACTIONS = {
    ("send",): "send_message",
    ("close",): "close_group",
    ("m1", "send"): "send_message",
    ("m1", "close"): "close_connection",
}
FIELDS = {"send": {"text": "hello"}, "close": {"code": "4000", "reason": "closing"}}


def test_who_is_not_logged_in_is_asked_to(client, books):
    books.join(("room", member("m1")))
    for url in (GROUPS, PROCESSES, page("room"), page("room", "history")):
        response = client.get(url)
        assert response.url == f"/admin/login/?{urlencode({'next': url}, safe='/')}"
    for parts in ACTIONS:
        response = client.post(page("room", *parts), FIELDS[parts[-1]])
        assert response.url.startswith("/admin/login/")
    assert not LogEntry.objects.exists()


def test_who_has_no_permission_sees_nothing(log_in, books):
    books.join(("room", member("m1")))
    client = log_in("view_user")
    assert "Connection groups" not in html(client.get("/admin/"))
    assert client.get("/admin/channels_groups/").status_code == 404
    for url in (GROUPS, PROCESSES, page("room"), page("room", "history")):
        for query in ("", "?_live=1"):
            response = client.get(url + query)
            assert response.status_code == 403
            assert b"room" not in response.content.replace(b"/admin/", b"")
    for parts in ACTIONS:
        response = client.post(page("room", *parts), FIELDS[parts[-1]])
        assert response.status_code == 403


def test_who_may_view_may_do_nothing(log_in, books):
    books.join(("room", member("m1")))
    client = log_in("view_group")
    index = html(client.get("/admin/"))
    assert "Connection groups" in index and PROCESSES not in index
    assert f'<a href="{GROUPS}" class="viewlink"' in index
    assert names_in(client.get(GROUPS)) == ["room"]
    assert "m1" in text_of(client.get(page("room")))
    assert client.get(page("room", "history")).status_code == 200
    assert client.get(PROCESSES).status_code == 403
    found = html(client.get(page("room")))
    for parts in ACTIONS:
        assert page("room", *parts) not in found
        assert client.get(page("room", *parts)).status_code == 403
    assert client.get(f"{GROUPS}add/").status_code == 404


@pytest.mark.parametrize("mine", sorted(set(ACTIONS.values())))
def test_each_action_has_a_permission(log_in, books, mine):
    books.join(("room", member("m1")))
    client = log_in("view_group", mine)
    found = html(client.get(page("room")))
    for parts, permission in ACTIONS.items():
        url = page("room", *parts)
        assert (url in found) == (permission == mine)
        expected = 200 if permission == mine else 403
        assert client.get(url).status_code == expected
        assert client.get(page("room", "open")).status_code == 404


def test_an_action_needs_the_permission_to_view(log_in, books):
    books.join(("room", member("m1")))
    client = log_in("close_group", "close_connection", "send_message")
    for parts in ACTIONS:
        url = page("room", *parts)
        assert client.post(url, FIELDS[parts[-1]]).status_code == 403


# What is done

SENT = {
    ("send",): {"type": "groups.send", "text": "hello"},
    ("close",): {"type": "groups.close", "code": 4000, "reason": "closing"},
}
LOGGED = {
    ("send",): "Sent to all 2 connections: hello",
    ("close",): "Closed all 2 connections with code 4000: closing",
    ("m1", "send"): "Sent to connection m1 of 7: hello",
    ("m1", "close"): "Closed connection m1 of 7 with code 4000: closing",
}


@pytest.mark.parametrize("parts", ACTIONS)
def test_an_action_asks_acts_and_is_logged(admin_client, admin_user, books, parts):
    channel = books.listen("room")
    own = async_to_sync(books.manager.channel_layer.new_channel)()
    one = member("m1", user="7", channel=own)
    books.join(("room", one), ("room", member("m2")))
    to, others = (own, channel) if len(parts) == 2 else (channel, own)

    url = page("room", *parts)
    asked = html(admin_client.get(url))
    assert "csrfmiddlewaretoken" in asked and 'type="submit"' in asked
    assert books.heard(to) == [] and not LogEntry.objects.exists()

    response = admin_client.post(url, FIELDS[parts[-1]])
    assert response.url == page("room")
    (sent,) = books.heard(to)
    assert sent.items() >= SENT[parts[-1:]].items()
    assert books.heard(others) == []

    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_repr) == (admin_user, "room")
    assert entry.get_admin_url() == page("room")
    assert entry.get_change_message() == LOGGED[parts]
    assert LOGGED[parts] in text_of(admin_client.get(page("room")))  # the message
    assert LOGGED[parts] not in text_of(admin_client.get(page("room")))
    assert LOGGED[parts] in text_of(admin_client.get(page("room", "history")))


def test_actions_need_a_token_of_ours(admin_user, books):
    channel = books.listen("room")
    books.join(("room", member("m1")))
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    url = page("room", "close")
    assert client.post(url, FIELDS["close"]).status_code == 403
    assert client.put(url, FIELDS["close"]).status_code in (403, 405)
    client.get(url, FIELDS["close"])
    assert books.heard(channel) == []
    fields = {
        **FIELDS["close"],
        "csrfmiddlewaretoken": client.cookies["csrftoken"].value,
    }
    assert client.post(url, fields).status_code == 302
    assert len(books.heard(channel)) == 1


def test_pages_are_read_with_get_only(admin_client, books):
    for url in (GROUPS, PROCESSES, page("room")):
        assert admin_client.post(url).status_code == 405


@pytest.mark.parametrize(
    "action, fields, complaint",
    [
        ("close", {"code": "1001"}, "A close code is 1000 or from 3000 to 4999"),
        ("close", {"code": "x"}, "Enter a whole number"),
        ("close", {"reason": "é" * 100}, "at most 123 bytes"),
        ("send", {"text": ""}, "This field is required"),
    ],
)
def test_what_cannot_be_done_is_asked_again(
    admin_client, books, action, fields, complaint
):
    channel = books.listen("room")
    books.join(("room", member("m1")))
    response = admin_client.post(page("room", action), fields)
    assert complaint in text_of(response)
    assert books.heard(channel) == [] and not LogEntry.objects.exists()


def test_a_message_is_sent_as_it_was_typed(admin_client, books):
    channel = books.listen("room")
    books.join(("room", member("m1")))
    admin_client.post(page("room", "send"), {"text": ' {"a":\r\n 1} '})
    assert books.heard(channel)[0]["text"] == ' {"a":\n 1} '
    assert "the one connection" in LogEntry.objects.get().get_change_message()


@pytest.mark.parametrize("parts", ACTIONS)
def test_who_is_gone_is_missed(admin_client, books, parts):
    response = admin_client.post(page("room", *parts), FIELDS[parts[-1]], follow=True)
    assert "is not there any more" in text_of(response)
    assert not LogEntry.objects.exists()


def test_a_full_channel_is_told(admin_client, books, settings, open_books):
    settings.CHANNEL_LAYERS = layers.memory_layer(capacity=1)
    books = open_books()
    own = async_to_sync(books.manager.channel_layer.new_channel)()
    books.join(("room", member("m1", channel=own)))
    url = page("room", "m1", "send")
    admin_client.post(url, FIELDS["send"])
    response = admin_client.post(url, FIELDS["send"], follow=True)
    assert "It was not done" in text_of(response)
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("parts", ACTIONS)
def test_what_may_have_been_done_is_said_and_logged(
    admin_client, books, monkeypatch, parts
):
    own = async_to_sync(books.manager.channel_layer.new_channel)()
    books.join(("room", member("m1", user="7", channel=own)), ("room", member("m2")))

    async def fail(*args, **kwargs):
        raise ConnectionError("It <broke>")

    for name in ("send", "group_send"):
        monkeypatch.setattr(books.manager.channel_layer, name, fail)
    url = page("room", *parts)
    shown = text_of(admin_client.post(url, FIELDS[parts[-1]], follow=True))
    whom = "connection m1 of 7" if len(parts) == 2 else "all 2 connections"
    does = {"send": "Send to", "close": "Close"}[parts[-1]]
    assert f"{does} {whom}: It is not known whether this was done" in shown
    assert ("or for how many" in shown) == (len(parts) == 1)
    assert "The channel layer did not answer: It <broke>." in shown
    assert LOGGED[parts] not in shown
    said = LogEntry.objects.get().get_change_message()
    assert said.startswith(f"Perhaps: {LOGGED[parts]} (")
    assert "It &lt;broke&gt;" in html(admin_client.get(page("room", "history")))


# What is shown


def test_any_name_is_shown_and_found(admin_client, books):
    books.join(*((name, member(f"m{n}")) for n, name in enumerate(NAMES)))
    response = admin_client.get(GROUPS)
    assert MARKUP not in html(response)
    assert {"'a\\nb'", "'\\x00'", "' '", MARKUP} <= set(names_in(response))
    links = re.findall(r'<th scope="row"><a href="([^"]*)"', html(response))
    assert len(links) == len(NAMES)
    seen = {}
    for link in map(unescape, links):
        shown = html(admin_client.get(link))
        (id,) = re.findall(r"<code>(m\d+)</code>", shown)
        seen[id] = link
        asked = html(admin_client.get(link.replace("/change/", "/send/")))
        assert MARKUP not in shown and MARKUP not in asked
    assert set(seen) == {f"m{n}" for n in range(len(NAMES))}
    assert [seen[f"m{n}"] for n in range(len(NAMES))] == [page(name) for name in NAMES]


def test_all_of_a_member_is_escaped(admin_client, books):
    info = {"name": MARKUP, "long": MARKUP * 10}
    own = async_to_sync(books.manager.channel_layer.new_channel)()
    one = member(MARKUP, MARKUP, info, channel=own, joined_at=1_700_000_000)
    books.join(("room", one), ("room", member("m2")))
    shown = html(admin_client.get(page("room")))
    assert "<script>alert" not in shown
    assert MARKUP in text_of(admin_client.get(page("room")))
    assert "2023-11-14 22:13:20" in shown
    assert "nobody known" in shown
    response = admin_client.post(page("room", MARKUP, "send"), {"text": MARKUP})
    shown = html(admin_client.get(response.url))
    assert "<script>alert" not in shown
    shown = html(admin_client.get(page("room", "history")))
    assert "<script>alert" not in shown and "alert(" in shown


def test_what_is_done_to_any_group_can_be_logged(admin_client, books, postgresql):
    books.join(*((name, member("m", user="\0\x1b")) for name in NAMES))
    for name in NAMES:
        response = admin_client.post(page(name, "m", "send"), {"text": "hello"})
        assert response.url == page(name)
        entry = LogEntry.objects.latest("pk")
        entry.clean_fields()
        assert entry.get_admin_url() == page(name)
        assert Group(key=entry.object_id).name == name
        texts = [entry.object_id, entry.object_repr, entry.change_message]
        assert postgresql.run(keep, postgresql.alias, texts) == texts
        assert "hello" in text_of(admin_client.get(page(name, "history")))


def keep(alias, texts):
    """Return what a database makes of texts."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT %s::text, %s::text, %s::text", texts)
        return [*cursor.fetchone()]


@pytest.mark.parametrize(
    "key", ["room", "default_2F", "other_2Froom", "default_2F" + "x" * 1001]
)
def test_impossible_groups_are_not_found(admin_client, books, key):
    for where in ("change", "history", "close"):
        assert admin_client.get(f"{GROUPS}{key}/{where}/").status_code == 404


def test_a_group_without_members(admin_client, books):
    assert "There are no groups" in text_of(admin_client.get(GROUPS))
    assert "Nobody is in the group" in text_of(admin_client.get(page("room")))


def test_the_live_part_is_that_of_the_page(admin_client, books):
    books.join(("room", member("m1")))
    for url in (GROUPS, page("room"), PROCESSES):
        whole = html(admin_client.get(url))
        part = admin_client.get(url, {"_live": "1"})
        assert "no-store" in part["Cache-Control"]
        part = re.sub(r"\d\.\d s", "", html(part))
        assert "<html" not in part and "_live" not in part
        if url != PROCESSES:  # where time goes on
            assert " ".join(part.split()) in " ".join(whole.split())


def test_users_are_linked_where_they_may_be_seen(client, log_in, books):
    ann = User.objects.create_user("ann <b>")
    ids = [str(ann.pk), f"0{ann.pk}", "9" * 40, "\0", "ann <b>", "-1", ""]
    books.join(*(("room", member(f"m{n}", user=id)) for n, id in enumerate(ids)))
    link = f'<a href="/admin/auth/user/{ann.pk}/change/"><bdi>ann &lt;b&gt;</bdi></a>'
    log_in("view_group", "view_user")
    assert html(client.get(page("room"))).count(link) == 1
    assert html(client.get(page("room"))).count("/admin/auth/user/") == 2  # the menu
    User.objects.get(username="somebody").delete()
    log_in("view_group")
    assert "/admin/auth/user/" not in html(client.get(page("room")))


def test_each_member_has_a_process(admin_client, books):
    books.node.incarnation = books.node.incarnation._replace(process="web1:123:4")
    async_to_sync(books.node.register)(60)
    other = books.new_node()
    books.join(("room", member("m1")), ("other", member("m1")))
    books.join(("room", member("m2")), node=other)
    assert "web1, 123" in text_of(admin_client.get(page("room")))
    shown = text_of(admin_client.get(PROCESSES))
    assert "2 processes, 2 groups, 3 members" in shown
    assert re.search(r"web1 123 0 2 \d\.\d s ago in [56]\d\.\d s", shown)
    assert re.search(r" host 1 0 1 \d", shown)


def test_who_lingers_is_on_no_process(admin_client, books):
    books.join(("room", member("m1", user="7")))
    async_to_sync(books.node.commit)(Leave("room", member("m1", user="7"), grace=30))
    shown = text_of(admin_client.get(page("room")))
    assert "1 connection, 1 user" in shown
    assert "none: may come back" in shown


# Pages of a large store


@pytest.fixture
def many(books):
    """10,000 groups; of the last hundred each has one member more."""
    names = [f"g{n:04}" for n in range(10_000)]
    joins = [(name, member("m")) for name in names]
    joins += [
        (name, member(f"m{k}"))
        for n, name in enumerate(names[-100:])
        for k in range(n + 1)
    ]
    for start in range(0, len(joins), 1000):
        books.join(*joins[start : start + 1000])
    return books


def test_a_page_of_many_groups_reads_one_page(admin_client, many, monkeypatch):
    given = many.count_rows(monkeypatch)
    first = admin_client.get(GROUPS)
    assert sum(given) == SIZE
    assert names_in(first) == [f"g{n:04}" for n in range(9999, 9899, -1)]
    shown = text_of(first)
    assert "10000 groups, 15050 members" in shown and "1–100 of 10000" in shown
    assert "order of their members only" in shown and "o=name" not in html(first)

    given.clear()
    second = admin_client.get(GROUPS + link_in(first, "Next"))
    assert sum(given) == SIZE
    assert "101–200 of 10000" in text_of(second)
    assert set(names_in(second)).isdisjoint(names_in(first))
    given.clear()
    back = admin_client.get(GROUPS + link_in(second, "Previous"))
    assert names_in(back) == names_in(first)
    assert link_in(back, "Previous") is None
    assert sum(given) <= 2 * SIZE

    last = admin_client.get(GROUPS, {"p": "9950", "o": "members"})
    assert names_in(last)[-1] == "g9999"
    assert "9951–10000 of 10000" in text_of(last)
    assert link_in(last, "Next") is None


def test_a_search_reads_what_it_finds(admin_client, many, monkeypatch):
    given = many.count_rows(monkeypatch)
    found = admin_client.get(GROUPS, {"q": "g000", "o": "name"})
    assert names_in(found) == [f"g000{n}" for n in range(10)]
    assert sum(given) == 10
    backwards = admin_client.get(GROUPS, {"q": "g000", "o": "-name"})
    assert names_in(backwards) == names_in(found)[::-1]

    given.clear()
    found = admin_client.get(GROUPS, {"q": "g", "o": "name"})
    assert sum(given) == 1000  # of 10,000
    assert "searched in parts" in text_of(found)
    assert "1–100 of 1000 found" in text_of(found)
    assert len(names_in(found)) == SIZE
    assert link_in(found, "First part") is None
    given.clear()
    further = admin_client.get(GROUPS + link_in(found, "Search further"))
    assert sum(given) == 1000
    assert set(names_in(further)).isdisjoint(names_in(found))
    again = admin_client.get(GROUPS + link_in(further, "First part"))
    assert names_in(again) == names_in(found)
    assert "No name of a group begins so" in text_of(
        admin_client.get(GROUPS, {"q": "*"})
    )


def test_a_costly_search_is_not_to_be_repeated(admin_client, many, monkeypatch):
    assert "data-costly" not in html(admin_client.get(GROUPS, {"q": "g"}))
    monkeypatch.setattr(listing, "CHEAP", 500)
    assert "data-costly" in html(admin_client.get(GROUPS, {"q": "g"}))
    monkeypatch.setattr(listing, "LOOKED", 500)
    for query in ("g", "x"):
        assert "data-costly" not in html(admin_client.get(GROUPS, {"q": query}))


def test_some_groups_are_sorted_in_every_way(admin_client, books):
    counts = {"b": 3, "a": 1, "c": 2}
    books.join(
        *((name, member(f"m{n}")) for name in counts for n in range(counts[name]))
    )
    for order, names in {
        "": "bca",
        "nonsense": "bca",
        "-members": "bca",
        "members": "acb",
        "name": "abc",
        "-name": "cba",
    }.items():
        found = admin_client.get(GROUPS, {"o": order, "p": "nonsense"})
        assert "".join(names_in(found)) == names, order
    assert 'aria-sort="descending"' in html(found)


def test_a_large_group_comes_in_pages(admin_client, books, monkeypatch):
    ids = [f"m{n:05}" for n in range(10_000)]
    for start in range(0, len(ids), 1000):
        books.join(*(("room", member(id)) for id in ids[start : start + 1000]))
    other = books.new_node()
    books.join(("room", member("x")), node=other)
    given = books.count_rows(monkeypatch)
    found, url = [], page("room")
    for number in range(3):
        given.clear()
        response = admin_client.get(url)
        found.append(ids_in(response))
        assert sum(given) <= 2 * SIZE
        assert (link_in(response, "First page") is None) == (number == 0)
        assert (link_in(response, "Previous") is None) == (number == 0)
        assert "10001 connections" in text_of(response)
        url = page("room") + link_in(response, "Next")
    together = sum(found, [])
    assert len(together) == len(set(together)) >= 3 * SIZE
    for earlier in (1, 0):
        response = admin_client.get(link_in(response, "Previous"))
        assert ids_in(response) == found[earlier]
    assert link_in(response, "Previous") is None
    assert link_in(admin_client.get(page("room")), "Next") == link_in(response, "Next")
    last = admin_client.get(page("room"), {"p": f"{books.node.incarnation.id}:m09989"})
    assert ids_in(last) == [*ids[-10:], "x"]
    assert link_in(last, "Next") is None


# What may be missing


def test_a_store_that_does_not_answer(admin_client, books, monkeypatch):
    books.join(("room", member("m1")))

    async def fail(*args, **kwargs):
        raise StoreUnavailable("The store is <away>.")

    for name in ("count", "member", "membership_count", "nodes"):
        monkeypatch.setattr(books.store, name, fail)
    for url in (GROUPS, page("room"), PROCESSES):
        for query in ({}, {"_live": "1"}):
            response = admin_client.get(url, query)
            assert response.status_code == 503
            assert b"The store is &lt;away&gt;." in response.content
    for parts in ACTIONS:
        for method in (admin_client.get, admin_client.post):
            response = method(page("room", *parts), FIELDS[parts[-1]], follow=True)
            assert response.status_code == 503
            assert b"It was not done: The store is &lt;away&gt;." in response.content
    assert not LogEntry.objects.exists()


def test_layers_are_kept_apart(admin_client, books, settings, open_books):
    settings.CHANNEL_LAYERS = {
        **layers.memory_layer(),
        "a/b <c>": layers.memory_layer()["default"],
        "strange": {"BACKEND": "tests.unit.test_admin.StrangeLayer"},
    }
    open_books().join(("here", member("m1")))
    there = open_books("a/b <c>")
    there.join(("there", member("m2")))
    channel = there.listen("there")
    assert names_in(admin_client.get(GROUPS)) == ["here"]
    response = admin_client.get(GROUPS, {"layer": "a/b <c>"})
    assert names_in(response) == ["there"]
    assert 'aria-current="true">a/b &lt;c&gt;</a>' in html(response)
    url = page("there", alias="a/b <c>")
    assert url in html(response)
    assert "m2" in text_of(admin_client.get(url))
    admin_client.post(page("there", "send", alias="a/b <c>"), {"text": "hello"})
    assert there.heard(channel)[0]["text"] == "hello"
    assert LogEntry.objects.get().get_admin_url() == url
    assert admin_client.get(GROUPS, {"layer": "none"}).status_code == 404
    response = admin_client.get(GROUPS, {"layer": "strange"})
    assert response.status_code == 503
    assert b"has no store for" in response.content


class StrangeLayer:
    """A channel layer that no store is for."""

    def __init__(self, **config):
        pass


async def test_what_is_begun_is_finished_whoever_goes_away():
    goes_on = asyncio.Event()

    async def act():
        await goes_on.wait()
        return "done"

    view = asyncio.create_task(pages._finish(act()))
    for _ in range(3):
        await asyncio.sleep(0)
        view.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    assert await view == "done"


# The models without tables


def test_there_is_no_table_and_nothing_to_migrate(settings):
    tables = set(connection.introspection.table_names())
    assert not tables & {"channels_groups_group", "channels_groups_process"}
    call_command("makemigrations", "channels_groups", check=True, verbosity=0)
    wanted = {"view_group", "close_group", "close_connection", "send_message"}
    found = Permission.objects.filter(content_type__app_label="channels_groups")
    assert {one.codename for one in found} == wanted | {"view_process"}
    for options in ({}, {"use_base_manager": True}):
        out = io.StringIO()
        call_command("dumpdata", "channels_groups", stdout=out, **options)
        assert out.getvalue().strip() == "[]"
    call_command("check", databases=["default"], fail_level="WARNING", tags=["models"])


# The chart


def test_the_chart_has_gaps_where_nobody_looked(monkeypatch, settings):
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "chart",
        }
    }
    now = datetime.now(timezone.utc).timestamp()
    kept = []
    for ago, members in [(700, 9), (590, 3), (588, 4), (587.5, 7), (300, 8), (0, 2)]:
        monkeypatch.setattr(chart.time, "time", lambda: now - ago)
        kept = chart.add_sample("any alias: ü", members)
    assert [count for _, count in kept] == [3, 4, 8, 2]
    drawn = chart.draw(kept)
    assert (drawn.top, drawn.now, drawn.most, drawn.fewest) == (10, 2, 8, 2)
    settings.CACHES = {"default": {"BACKEND": "tests.helpers.NoSuchCache"}}
    assert [count for _, count in chart.add_sample("any alias: ü", 2)] == [2]
    assert drawn.lines == [
        "10.0,105.0 12.0,90.0",
        "300.0,30.0 300.0,30.0",
        "600.0,120.0 600.0,120.0",
    ]
    empty = chart.draw([(now, 0)])
    assert (empty.top, empty.lines) == (10, ["600.0,150.0 600.0,150.0"])
    assert [chart.draw([(now, n)]).top for n in (10, 11, 61, 1234)] == [
        20,
        20,
        80,
        2000,
    ]


class ReadOnly(dict):
    """A cache that can be read and not written, as a replica."""

    def set(self, *args):
        raise ConnectionError


def test_a_cache_that_cannot_be_written_takes_the_chart_only(monkeypatch):
    monkeypatch.setattr(chart, "cache", ReadOnly())
    assert [count for _, count in chart.add_sample("default", 3)] == [3]

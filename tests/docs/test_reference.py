"""The reference has every public name, setting and check, and no other."""

import ast
import inspect
import re
from dataclasses import fields
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.management import _get_all_permissions
from django.core.management.base import CommandParser
from django.dispatch import Signal

from channels_groups import metrics, pytest_plugin, routing
from channels_groups.admin import GroupAdmin, ProcessAdmin
from channels_groups.conf import GroupSettings
from channels_groups.management.actions import ACTIONS
from channels_groups.models import Group, Process
from channels_groups.stores import DATABASE, STORES
from channels_groups.watch import Event

from .blocks import ROOT

REFERENCE = ROOT / "docs" / "reference"
PACKAGE = ROOT / "channels_groups"

#: Modules that users import from, with names in them that are for the library.
PUBLIC = {
    "metrics": set(),
    "consumers": set(),
    "groups": {"Handle", "Recipients", "to_ids"},
    "users": set(),
    "manager": set(),
    "signals": set(),
    "exceptions": set(),
    "testing": {"ClockedStore"},
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
MEMBERS = re.compile(
    r"^\.\. automodule::.*\n +:members:(.+\n(?: {6,}.+\n)*)"
    r"|^\.\. auto(?:data|class):: (.*)$",
    re.MULTILINE,
)


def defined(module):
    """Return the public names of classes, functions and signals of a module."""
    module = import_module(f"channels_groups.{module}")
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        if (isinstance(value, Signal) and module.__name__.endswith("signals"))
        or (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("module", PUBLIC)
def test_names(module):
    text = (REFERENCE / f"{module}.md").read_text()
    assert f".. automodule:: channels_groups.{module}\n" in text
    listed = re.findall(r"\w+", " ".join(a + b for a, b in MEMBERS.findall(text)))
    assert sorted(listed) == sorted(defined(module) - PUBLIC[module])


def test_fixtures():
    text = (REFERENCE / "testing.md").read_text()
    source = inspect.getsource(pytest_plugin)
    fixtures = re.findall(r"@pytest\.fixture\ndef (\w+)", source)
    assert fixtures and [name for name in fixtures if f"`{name}`" not in text] == []


def test_settings():
    headings = re.findall(
        r"^## `(\w+)`$", (REFERENCE / "settings.md").read_text(), re.MULTILINE
    )
    assert headings == [field.name.upper() for field in fields(GroupSettings)]


def test_checks():
    given = set()
    for path in PACKAGE.rglob("*.py"):
        given |= set(re.findall(r"channels_groups\.[EW]\d{3}", path.read_text()))
    rows = re.findall(
        r"^\| `(channels_groups\.[EW]\d{3})`",
        (REFERENCE / "checks.md").read_text(),
        re.M,
    )
    assert rows == sorted(given)


def read_rows(page, pattern):
    """Return what stands as code in the first column of tables."""
    return re.findall(rf"^\| `({pattern})`", (REFERENCE / page).read_text(), re.M)


def test_stores():
    assert read_rows("stores.md", r"channels_groups\.\S+") == [
        *STORES.values(),
        DATABASE,
    ]
    layers = re.findall(
        r"\| `(channels\S+)` \|$", (REFERENCE / "stores.md").read_text(), re.M
    )
    assert layers == list(STORES)


def test_permissions():
    models = apps.get_app_config("channels_groups").get_models()
    given = {
        f"channels_groups.{codename}"
        for model in models
        for codename, _ in _get_all_permissions(model._meta)
    }
    assert set(read_rows("admin.md", r"channels_groups\.\w+")) == given


def test_addresses_of_the_admin():
    rows = read_rows("admin.md", r"admin:\w+")
    site = admin.AdminSite()
    given = [
        f"admin:{pattern.name}"
        for model, admin_class in ((Group, GroupAdmin), (Process, ProcessAdmin))
        for pattern in admin_class(model, site).get_urls()
    ]
    assert rows == given


def test_the_path_of_counts():
    (pattern,) = routing.websocket_urlpatterns
    assert f"``{pattern.pattern}``" in inspect.getsource(routing)


def test_javascript():
    sections = read_sections("javascript.md")
    source = (PACKAGE / "static" / "channels_groups" / "groups.js").read_text()
    exported = re.findall(r"^export class (\w+)", source, re.M)
    assert {title.partition("(")[0] for title in sections} == set(exported)
    tables = [
        [
            re.findall(r"`(\w+)", row)
            for row in re.findall(r"^\| (`.*?) \|", table, re.M)
        ]
        for table in sections["GroupSocket(url, options)"].split("\n\n")
    ]
    members, options, events = ([n for row in t for n in row] for t in tables if t)
    assert options == re.findall(r"@property \{.*?\} \[(\w+)\]", source)
    public = r"^  (?!constructor|take|tell|address|pause)([a-z]\w*)\(.*\{$"
    methods = set(re.findall(public, source, re.M)) - {"switch", "if", "for"}
    assert set(members) - {"status", "groups"} == methods
    told = set(re.findall(r'tell\("(\w+)"', source)) | {"join", "leave", "update"}
    assert set(events) == told
    group = source.partition("export class Group {")[2].partition("\n}")[0]
    fields = re.findall(r"this\.(\w+) =", group)
    rows = re.findall(r"^\| (`.*?) \|", sections["Group"], re.M)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(fields)


def test_metrics():
    collectors = metrics._Counting().collectors
    counted = {metric.name for one in collectors for metric in one.describe()}
    text = (REFERENCE / "metrics.md").read_text()
    rows = re.findall(r"`(channels_groups_\w+)`", text)
    documented = {name.removesuffix("_total") for name in rows}
    assert documented == counted | set(metrics.GAUGES)


def read_sections(page):
    """Return the text under each second heading, by what stands in it as code."""
    parts = re.split(r"^## `(.*)`$", (REFERENCE / page).read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def test_actions_of_the_command():
    sections = read_sections("command.md")
    assert [title.split()[0] for title in sections] == list(ACTIONS)
    for title, text in sections.items():
        parser = CommandParser(prog=title)
        ACTIONS[title.split()[0]].add_arguments(parser)
        options = [option for option in parser._actions if option.dest != "help"]
        rows = re.findall(r"^\| `(--[^`]+)`", text, re.M)
        assert rows == [
            (
                " ".join([one.option_strings[0], *([one.metavar or one.dest.upper()])])
                if one.nargs is None
                else one.option_strings[0]
            )
            for one in options
            if one.option_strings
        ]
        names = [
            f"[{one.metavar}]" if one.nargs == "?" else one.metavar
            for one in options
            if not one.option_strings
        ]
        assert title.split()[1:] == names


def test_fields_of_watch():
    text = read_sections("command.md")["watch [NAME]"]
    rows = [row for row in re.findall(r"^\| (`\w.*?) \|", text, re.M)]
    listed = re.findall(r"`(\w+)`", " ".join(rows))
    assert listed == [field.name for field in fields(Event)]


def read_log_calls():
    """Return every call that logs more than for debugging."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if ast.unparse(node.func.value) == "logger":
                    if node.func.attr != "debug":
                        yield f"{path.name}:{node.lineno}", node


def test_every_record_has_its_facts():
    calls = dict(read_log_calls())
    assert len(calls) > 10
    assert [
        where
        for where, call in calls.items()
        if "extra" not in {keyword.arg for keyword in call.keywords}
    ] == []


def test_messages_of_the_log():
    text = (REFERENCE / "logging.md").read_text()
    messages = re.findall(
        r"^\| `[A-Z]+` \| (?:with a traceback: )?([A-Z].+?) \|", text, re.M
    )
    assert len(messages) > 10
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    source = re.sub(r'"\s+"', "", source)
    for message in messages:
        # What stands before the first value.
        assert re.split(r" \d| …", message)[0] in source, message


@pytest.mark.parametrize(
    "page", ["README.md", "CHANGELOG.md", *ROOT.glob("docs/**/*.md")], ids=str
)
def test_links_lead_somewhere(page):
    page = ROOT / page
    for target in LINK.findall(page.read_text()):
        base = ROOT / "docs" if target.startswith("/") else page.parent
        assert (base / target.lstrip("/")).exists(), f"{page}: {target}"


def test_no_text_holds_two_versions():
    """A conflict of a merge that was committed unresolved."""
    marks = re.compile(r"^(<{7}|>{7}) ", re.M)
    texts = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    assert [path for path in texts if marks.search(path.read_text())] == []

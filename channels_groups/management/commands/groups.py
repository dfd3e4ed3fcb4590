"""``manage.py groups``: who is where, in the whole cluster, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import shutil
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any, AsyncIterator, Coroutine, Iterable, Sequence

from asgiref.sync import async_to_sync
from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import InMemoryChannelLayer
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from channels_groups.exceptions import GroupError
from channels_groups.groups import ConnectionGroup
from channels_groups.management.table import Column, fit, printable, render
from channels_groups.manager import get_group_manager
from channels_groups.stores.base import Disagreement, Member, StoreRebuilding
from channels_groups.watch import Event, Gap, Watcher

#: Rows of a table, unless told otherwise.
LIMIT = 20
#: Seconds between two attempts to verify a store that is being written back.
RETRY = 0.5

Options = dict[str, Any]


class Command(BaseCommand):
    """List, show, watch, send to and close groups; list processes; verify a store."""

    help = (
        "Shows who is in which connection group in the whole cluster, and acts on it."
    )
    # What is wrong with the configuration is said by `manage.py check`.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        def add(name: str, help: str) -> CommandParser:
            action: CommandParser = actions.add_parser(
                name, help=help, description=help
            )
            action.add_argument(
                "--alias",
                default=DEFAULT_CHANNEL_LAYER,
                help='The channel layer\'s alias in CHANNEL_LAYERS ("default").',
            )
            _add_base_options(action)
            return action

        action = add("list", "List the groups, those with most members first.")
        action.add_argument(
            "--prefix", default="", help="Only groups whose names begin so."
        )
        _add_limit(action)
        _add_json(action)
        action = add("show", "Show who is in a group.")
        action.add_argument("name", metavar="NAME")
        _add_limit(action)
        _add_json(action)
        action = add("watch", "Print each event as it happens, until Ctrl-C.")
        action.add_argument(
            "name", metavar="NAME", nargs="?", help="Of this group only."
        )
        _add_json(action, "Print each event as a line of JSON.")
        action = add("send", "Send a text to every member of a group.")
        action.add_argument("name", metavar="NAME")
        action.add_argument("text", metavar="TEXT")
        action = add("close", "Close every connection of a group, or all there are.")
        action.add_argument("name", metavar="NAME", nargs="?")
        action.add_argument(
            "--all", action="store_true", help="Every connection, in a group or not."
        )
        action.add_argument("--code", type=int, help="1000, or from 3000 to 4999.")
        action.add_argument("--reason", help="Up to 123 bytes; daphne drops it.")
        _add_no_input(action)
        action = add("processes", "List the processes that have connections.")
        _add_json(action)
        action = add("verify", "Compare what the store says in several places.")
        action.add_argument(
            "--repair", action="store_true", help="Mend what disagrees."
        )
        _add_no_input(action)
        _add_json(action)

    def handle(self, *args: Any, action: str, alias: str, **options: Any) -> None:
        if alias not in getattr(settings, "CHANNEL_LAYERS", {}):
            raise CommandError(f"CHANNEL_LAYERS has no {alias!r}.")
        try:
            self.manager = get_group_manager(alias)
            self.store = self.manager.store
            self._warn_of_memory(alias)
            getattr(self, f"do_{action}")(options)
        except (GroupError, ImproperlyConfigured, TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=130) from None
        except BrokenPipeError:
            # Who read it has seen enough, as `head` does; nor is there more to flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # Reading

    def do_list(self, options: Options) -> None:
        prefix, limit = options["prefix"], options["limit"]
        if options["json"]:
            self._print_json_list(self._list(prefix, limit))
        else:
            self._run(self._print_groups(prefix, LIMIT if limit is None else limit))

    async def _print_groups(self, prefix: str, limit: int) -> None:
        rows = [list(row.values()) async for row in self._list(prefix, limit)]
        if not rows:
            what = f" whose name begins with {prefix!r}" if prefix else ""
            self.stdout.write(f"There is no group{what}.")
            return
        self._print_table(
            [
                Column("Group", least=10),
                Column("Members", right=True),
                Column("Users", right=True, optional=True),
            ],
            ((name, f"{members:,}", f"{users:,}") for name, members, users in rows),
        )
        groups = await self.manager.agroup_count()
        members = await self.manager.amembership_count()
        shown = f"{len(rows):,} of " if len(rows) < groups else ""
        self.stdout.write(
            f"\n{shown}{_number(groups, 'group')}; {_number(members, 'membership')}."
        )

    async def _list(self, prefix: str, limit: int | None) -> AsyncIterator[Options]:
        for name, members in await self._largest(prefix, limit):
            users = await self.store.user_count(name)
            yield {"name": name, "members": members, "users": users}

    async def _largest(self, prefix: str, limit: int | None) -> list[tuple[str, int]]:
        """Return the groups with most members, of all shards."""
        found: list[tuple[str, int]] = []
        if limit is not None and not prefix:
            for shard in range(self.store.shards):
                found += await self.store.ranking(shard, 0, limit)
        else:
            cursor = None
            while True:
                page, cursor = await self.store.groups(prefix, cursor)
                found += page
                if limit is not None:
                    found = heapq.nlargest(limit, found, key=lambda one: one[1])
                if cursor is None:
                    break
        found = [one for one in set(found) if one[1] > 0]
        found.sort(key=lambda one: (-one[1], one[0]))
        return found[:limit]

    def do_show(self, options: Options) -> None:
        group = self.manager.group(options["name"])
        self._run(self._show(group, options["limit"], options["json"]))

    async def _show(
        self, group: ConnectionGroup, limit: int | None, as_json: bool
    ) -> None:
        about: Options = {"name": group.name, **await self._count(group)}
        if limit is None and not as_json:
            limit = LIMIT
        connections = [one async for one in self._members(group, limit)]
        if as_json:
            self._print_json({**about, "connections": connections})
            return
        self.stdout.write(
            f"{printable(group.name)}: {_number(about['members'], 'member')}, "
            f"{_number(about['users'], 'user')}.\n\n"
        )
        self._print_table(
            [
                Column("User", least=12),
                Column("Connection", optional=True),
                Column("Since", optional=True),
                Column("Process", least=8, optional=True),
                Column("Info", least=8, optional=True),
            ],
            (_member_row(one) for one in connections),
        )
        if len(connections) < about["members"]:
            rest = about["members"] - len(connections)
            self.stdout.write(f"\n{rest:,} more; --limit shows more of them.")

    async def _count(self, group: ConnectionGroup) -> dict[str, int]:
        members = await group.acount()
        if not members:
            raise CommandError(f"There is no group {group.name!r}.")
        return {"members": members, "users": await group.auser_count()}

    async def _members(
        self, group: ConnectionGroup, limit: int | None
    ) -> AsyncIterator[Options]:
        shard, left = self.store.shard(group.name), limit
        processes = {
            state.id: _process(state.process)
            for state in await self.store.nodes()
            if state.shard == shard
        }
        for node in await self.store.group_nodes(group.name):
            cursor = None
            while cursor != "":
                members, cursor = await self.store.node_members(
                    group.name, node, cursor or ""
                )
                for member in members:
                    if left == 0:
                        return
                    left = None if left is None else left - 1
                    yield _about(member, processes.get(node, ""))

    def do_processes(self, options: Options) -> None:
        processes = self._run(self._processes())
        if options["json"]:
            self._print_json(processes)
        elif not processes:
            self.stdout.write("No process has a connection.")
        else:
            self._print_table(
                [
                    Column("Process", least=12),
                    Column("Connections", right=True),
                    Column("Memberships", right=True),
                    Column("Lease", right=True, optional=True),
                ],
                (
                    (
                        one["process"],
                        f"{one['connections']:,}",
                        f"{one['memberships']:,}",
                        f"{one['lease']:.1f} s" if one["lease"] > 0 else "run out",
                    )
                    for one in processes
                ),
            )

    async def _processes(self) -> list[Options]:
        """Return the processes; one with several shards has a lease in each."""
        found: dict[str, Options] = {}
        for state in await self.store.nodes():
            name = state.process or state.id
            new = {
                "process": _process(name),
                "connections": 0,
                "memberships": 0,
                "lease": state.remaining,
            }
            one = found.setdefault(name, new)
            one["connections"] = max(one["connections"], state.connections)
            one["memberships"] += state.memberships
            one["lease"] = round(min(one["lease"], state.remaining), 3)
        return sorted(found.values(), key=lambda one: str(one["process"]))

    # Watching

    def do_watch(self, options: Options) -> None:
        name = options["name"]
        group = None if name is None else self.manager.group(name).name
        try:
            asyncio.run(self._watch(group, options["json"]))
        except KeyboardInterrupt:
            pass  # As the note has said.

    async def _watch(self, group: str | None, as_json: bool) -> None:
        async with Watcher(self.manager, group) as watcher:
            self._note("Watching; Ctrl-C ends it.")
            async for event in watcher:
                if isinstance(event, Gap):
                    self._note(event.why)
                elif as_json:
                    about = {**asdict(event), "time": _isoformat(event.time)}
                    self._print_json(about, indent=None)
                else:
                    self.stdout.write(self._event_line(event))
                self.stdout.flush()

    def _event_line(self, event: Event) -> str:
        when = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
        count = "" if event.count is None else f"{event.count:,}"
        line = f"{when}  {event.name:<9}  {count:>5}  {printable(event.group)}"
        if event.id is not None:
            line += f"  {printable(event.user_id or '-')}  {event.id}"
        if event.reason is not None:
            line += f"  {event.reason}"
        width = self._width()
        line = line if width is None else fit(line, width)
        style = STYLES.get(event.name)
        return getattr(self.style, style)(line) if style else line

    # Acting

    def do_send(self, options: Options) -> None:
        group = self.manager.group(options["name"])
        members = self._run(self._count(group))["members"]
        group.send(options["text"])
        self.stdout.write(f"Sent to {_number(members, 'connection')}.")

    def do_close(self, options: Options) -> None:
        if options["all"] == (options["name"] is not None):
            raise CommandError("Give either the name of a group or --all.")
        code, reason = options["code"], options["reason"]
        if options["all"]:
            processes = self._run(self._processes())
            connections = sum(one["connections"] for one in processes)
            if not processes:
                raise CommandError("No process has a connection.")
            what = (
                f"all {_number(connections, 'connection')} of "
                f"{_number(len(processes), 'process')}"
            )
            self._confirm(f"Close {what}?", options)
            self.manager.close_all(code, reason)
        else:
            group = self.manager.group(options["name"])
            members = self._run(self._count(group))["members"]
            what = f"{_number(members, 'connection')} of {printable(group.name)}"
            self._confirm(f"Close {what}?", options)
            group.close_all(code, reason)
        self.stdout.write(f"Asked {what} to close.")

    def do_verify(self, options: Options) -> None:
        repair = options["repair"]
        if repair:
            self._confirm("Change what the store says where it disagrees?", options)
        checked, found = self._run(self._verify(repair))
        left = self._run(self._verify(False))[1] if repair and found else found
        if options["json"]:
            self._print_json(
                {
                    "checked": checked,
                    "disagreements": [one._asdict() for one in found],
                    "remaining": len(left),
                }
            )
        else:
            self._print_disagreements(checked, found)
        if left:
            hint = "" if repair else " --repair mends what it can."
            raise CommandError(f"{_number(len(left), 'disagreement')} left.{hint}")
        if found and not options["json"]:
            self.stdout.write(self.style.SUCCESS("All of it is mended."))

    def _print_disagreements(self, checked: int, found: list[Disagreement]) -> None:
        for one in found:
            about = [
                *([f"group {one.group!r}"] if one.group else []),
                *([f"process {one.node}"] if one.node else []),
                *([f"host {one.shard}"] if self.store.shards > 1 else []),
            ]
            line = f"{', '.join(about)}: {one.what}" if about else one.what
            self.stdout.write(self.style.WARNING(line))
        entries = f"{checked:,} entr{'y' if checked == 1 else 'ies'} compared"
        agree = "" if found else ", all agree"
        self.stdout.write(f"{entries}{agree}.")

    async def _verify(self, repair: bool) -> tuple[int, list[Disagreement]]:
        checked, found, cursor = 0, [], None
        self.store.attach()
        try:
            while True:
                try:
                    findings, cursor = await self.store.verify(cursor, repair)
                except StoreRebuilding:
                    self._progress("The processes are writing back; waiting …")
                    await asyncio.sleep(RETRY)
                    continue
                checked += findings.checked
                found += findings.disagreements
                self._progress(f"{checked:,} entries compared …")
                if cursor is None:
                    return checked, found
        finally:
            self._progress("")
            await self.store.detach()

    # Writing

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        async def run() -> Any:
            return await call

        return async_to_sync(run)()

    def _confirm(self, question: str, options: Options) -> None:
        """Ask before anything is closed or changed, but only a person at a terminal."""
        if not options["interactive"]:
            return
        if not sys.stdin.isatty():
            raise CommandError(
                "There is no terminal to ask at; with --no-input nothing is asked."
            )
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done.")

    def _print_table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[object]]
    ) -> None:
        titles, *lines = render(columns, rows, self._width())
        self.stdout.write(self.style.MIGRATE_HEADING(titles))
        for line in lines:
            self.stdout.write(line)

    def _print_json(self, content: Any, indent: int | None = 2) -> None:
        self.stdout.write(json.dumps(content, indent=indent, ensure_ascii=False))

    def _print_json_list(self, rows: AsyncIterator[Options]) -> None:
        """Print a list row by row: it may be long."""

        async def print_all() -> None:
            mark = "["
            async for row in rows:
                line = json.dumps(row, ensure_ascii=False)
                self.stdout.write(f"{mark}\n  {line}", ending="")
                mark = ","
            self.stdout.write("[]" if mark == "[" else "\n]")

        self._run(print_all())

    def _note(self, text: str) -> None:
        self.stderr.write(self.style.NOTICE(text) if text else text)
        self.stderr.flush()

    def _progress(self, text: str) -> None:
        """Show on a terminal how far it is, on a line that the next one replaces."""
        if self.stderr.isatty():
            self.stderr.write(f"\r\033[K{text}", self.style.NOTICE, ending="")
            self.stderr.flush()

    def _width(self) -> int | None:
        """Return the terminal's width; None where a script reads."""
        return shutil.get_terminal_size().columns if self.stdout.isatty() else None

    def _warn_of_memory(self, alias: str) -> None:
        if isinstance(self.manager.channel_layer, InMemoryChannelLayer):
            self._note(
                f"CHANNEL_LAYERS[{alias!r}] is in memory: this command sees only the "
                "connections of its own process."
            )


STYLES = {
    "created": "SUCCESS",
    "join": "SUCCESS",
    "leave": "WARNING",
    "destroyed": "WARNING",
}


def _add_base_options(action: CommandParser) -> None:
    """Let Django's own options stand after the action, too."""
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    for option in ("--settings", "--pythonpath"):
        action.add_argument(option, **hidden)
    for option in ("--traceback", "--no-color", "--force-color"):
        action.add_argument(option, action="store_true", **hidden)


def _add_limit(action: CommandParser) -> None:
    action.add_argument(
        "--limit",
        type=_positive,
        help=f"How many to list; {LIMIT}, or all of them as JSON.",
    )


def _add_json(action: CommandParser, help: str = "Print JSON.") -> None:
    action.add_argument("--json", action="store_true", help=help)


def _add_no_input(action: CommandParser) -> None:
    action.add_argument(
        *("--no-input", "--noinput"),
        action="store_false",
        dest="interactive",
        help="Do not ask.",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("It must be at least 1.")
    return number


def _number(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _process(process: str) -> str:
    """Return host and pid of ``<host>:<pid>:<number>``."""
    return process.rpartition(":")[0] or process


def _about(member: Member, process: str) -> Options:
    return {
        "id": member.id,
        "user_id": member.user_id,
        "info": member.info,
        "joined_at": _isoformat(member.joined_at),
        "process": process,
        "channel_name": member.channel_name,
    }


def _isoformat(seconds: float) -> str:
    now = datetime.fromtimestamp(seconds, timezone.get_current_timezone())
    return now.isoformat()


def _member_row(about: Options) -> list[str]:
    since = datetime.fromisoformat(about["joined_at"])
    info = json.dumps(about["info"], ensure_ascii=False) if about["info"] else ""
    user = "-" if about["user_id"] is None else about["user_id"]
    return [user, about["id"], since.strftime("%Y-%m-%d %H:%M"), about["process"], info]

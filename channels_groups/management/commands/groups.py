"""``manage.py groups``: who is where, in the whole cluster, and what to do about it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_groups.exceptions import GroupError
from channels_groups.management.actions import ACTIONS
from channels_groups.management.console import Console
from channels_groups.manager import get_group_manager
from channels_groups.stores.memory import MemoryStore


class Command(BaseCommand):
    """List, show, watch, send to and close groups; list processes; verify a store."""

    help = (
        "Shows who is in which connection group in the whole cluster, and acts on it."
    )
    # What is wrong with the configuration is said by `manage.py check`.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for name, action in ACTIONS.items():
            subparser: CommandParser = actions.add_parser(
                name, help=action.help, description=action.help
            )
            subparser.add_argument(
                "--alias",
                default=DEFAULT_CHANNEL_LAYER,
                help='The channel layer\'s alias in CHANNEL_LAYERS ("default").',
            )
            _add_base_options(subparser)
            action.add_arguments(subparser)

    def handle(self, *args: Any, action: str, alias: str, **options: Any) -> None:
        if alias not in getattr(settings, "CHANNEL_LAYERS", {}):
            raise CommandError(f"CHANNEL_LAYERS has no {alias!r}.")
        console = Console(self)
        try:
            manager = get_group_manager(alias)
            if isinstance(manager.channel_layer, InMemoryChannelLayer):
                # A database may hold what is in other processes, too.
                sees = isinstance(manager.store, MemoryStore)
                console.note(
                    f"CHANNEL_LAYERS[{alias!r}] is in memory: this command "
                    f"{'sees' if sees else 'reaches'} only the connections of its own "
                    "process."
                )
            ACTIONS[action](manager, console).act(options)
        except (GroupError, ImproperlyConfigured, TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        except ChannelFull as error:
            raise CommandError("Too much waits for a process to get it.") from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=130) from None
        except BrokenPipeError:
            # Who read it has seen enough, as `head` does; nor is there more to flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            console.end_progress()


def _add_base_options(parser: CommandParser) -> None:
    """Let Django's own options stand after the action, too."""
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    for option in ("--settings", "--pythonpath"):
        parser.add_argument(option, **hidden)
    for option in ("--traceback", "--no-color", "--force-color"):
        parser.add_argument(option, action="store_true", **hidden)

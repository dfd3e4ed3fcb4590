"""``manage.py demo``: the rooms on this machine, in one process or in several."""

import os
import sys
import time

from daphne.cli import CommandLineInterface
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from testproject import processes

#: A client may send 1 MiB and more: the room answers it, the server need not.
MAX_MESSAGE = str(4 * 1024 * 1024)
#: Seconds in which a page is loaded again.
GRACE = "3"
APPLICATION = "testproject.asgi:application"
#: How often to try to migrate, and seconds between, while another demo does the same.
ATTEMPTS, PAUSE = 20, 0.5


class Command(BaseCommand):
    """Prepare the database, start a store if one is needed, and serve."""

    help = "Serve the demo; with --processes N by N servers on an embedded Valkey."

    def add_arguments(self, parser):
        """Take the number of processes, the first port and the server."""
        parser.add_argument("--processes", type=int, default=1, metavar="N")
        parser.add_argument("--port", type=int, default=8000, help="The first one.")
        parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")

    def handle(self, *, server, port, verbosity, **options):
        """Serve until Ctrl-C, SIGTERM or the end of one of the processes."""
        ports = range(port, port + options["processes"])
        check_ports(ports)
        migrate()
        with (
            processes.scratch() as directory,
            processes.Processes(self.write) as running,
        ):
            try:
                environment = start_store(running, directory, len(ports))
                for port in ports:
                    running.start(
                        f"{server} on port {port}",
                        server_command(server, port, verbosity),
                        port,
                        label=f"[{port}] " if len(ports) > 1 else "",
                        env={**environment, "DEMO_PROCESS_NAME": str(port)},
                    )
                self.announce(ports)
                running.wait()
            except processes.Stopped:
                pass
            except processes.Ended as error:
                raise CommandError(f"{error} The rest is ended too.") from None
        self.write("All processes have ended.\n")

    def announce(self, ports):
        """Print where the demo is."""
        for port in ports:
            self.write(f"Rooms are open at http://{processes.HOST}:{port}/\n")
        self.write("Ctrl-C ends them.\n")

    def write(self, text):
        """Print at once, for whoever reads our output line by line."""
        self.stdout.write(text, ending="")
        self.stdout.flush()


def migrate():
    """Prepare the database; of two who do so at once, one meets the other's tables."""
    for _ in range(ATTEMPTS):
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except DatabaseError as error:
            failed = error
            time.sleep(PAUSE)
        else:
            return
    raise CommandError(f"The database cannot be migrated: {failed}") from failed


def check_ports(ports):
    """Raise CommandError where nothing, or something else, would answer."""
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise CommandError("There must be a process, and a port for each.")
    for port in ports:
        if not processes.is_free(port):
            raise CommandError(f"Port {port} is in use; choose others with --port.")


def start_store(running, directory, count):
    """Start Valkey where the servers need one; return the servers' environment.

    Several processes need one, and so does a layer other than memory; a REDIS_URL
    in the environment says that there is one already.
    """
    layer = settings.CHANNEL_LAYER
    if count > 1 and layer == "memory":
        layer = "core"
    # Who reloads the page is back before anybody notices.
    environment = {"GROUP_GRACE": GRACE, **os.environ, "CHANNEL_LAYER": layer}
    if layer == "memory" or "REDIS_URL" in os.environ:
        return environment
    path = processes.find_store()
    if path is None:
        raise CommandError(
            "No embedded server is installed; run: pip install 'channels_groups[demo]'"
        )
    port = processes.free_port()
    command = processes.store_command(path, port, directory)
    running.start("The store", command, port, label="[store] ")
    return {**environment, "REDIS_URL": f"redis://{processes.HOST}:{port}/0"}


def server_command(server, port, verbosity):
    """Return the command that serves on one port, quiet unless asked."""
    command = [sys.executable, "-m", server, "--port", str(port)]
    if server == "uvicorn":
        level = "info" if verbosity > 1 else "warning"
        command += ["--host", processes.HOST, "--log-level", level]
        return [*command, "--ws-max-size", MAX_MESSAGE, APPLICATION]
    command += ["--bind", processes.HOST, "--verbosity", str(max(0, verbosity - 1))]
    # Newer daphnes close at 1 MiB, older ones have no limit and no such option.
    for option in ("--websocket-max-message-size", "--websocket-max-frame-size"):
        if option in CommandLineInterface().parser.format_help():
            command += [option, MAX_MESSAGE]
    return [*command, APPLICATION]

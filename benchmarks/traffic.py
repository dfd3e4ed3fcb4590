"""What goes on in Redis meanwhile."""

import socket
import threading
import time
from collections.abc import Sequence

from tests.helpers.server import RedisServer


class Traffic:
    """
    Count the commands of some servers, by MONITOR, and their bytes, both ways.

        with Traffic([redis]) as traffic:
            ...
        traffic.clients, traffic.scripts, traffic.bytes
    """

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self._servers = servers
        #: Commands that clients sent; what scripts called besides; bytes.
        self.clients = self.scripts = self.bytes = 0

    def __enter__(self) -> "Traffic":
        self._bytes = self._volume()  # Before, so that nobody counts its commands.
        self._monitors = [Monitor(server) for server in self._servers]
        return self

    def __exit__(self, *exc: object) -> None:
        for monitor in self._monitors:
            monitor.stop()
        self.bytes = self._volume() - self._bytes
        for monitor in self._monitors:
            self.clients += monitor.clients
            self.scripts += monitor.scripts
            self.bytes -= monitor.bytes

    def _volume(self) -> int:
        volume = 0
        for server in self._servers:
            with server.client() as client:
                stats = client.info("stats")
            volume += stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
        return volume


class Monitor:
    """A thread that reads what MONITOR says: " lua]" marks a script's own calls."""

    def __init__(self, server: RedisServer) -> None:
        self.clients = self.scripts = self.bytes = 0
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self._thread = threading.Thread(target=self._read, name="monitor")
        self._thread.start()

    def stop(self) -> None:
        time.sleep(0.05)  # What is under way counts, too.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._file.close()
        self._socket.close()

    def _read(self) -> None:
        for line in self._file:
            self.bytes += len(line)
            if b" lua] " in line[:64]:
                self.scripts += 1
            else:
                self.clients += 1

"""A real Sentinel that watches a server of ours."""

import textwrap
from pathlib import Path

from .eventually import eventually
from .processes import ChildProcess
from .server import RedisServer


class Sentinel:
    """
    The same binary as the server's, told to watch it under the name "main".

        with Sentinel(server, tmp_path) as sentinel:
            [("127.0.0.1", sentinel.port)]
    """

    def __init__(self, server: RedisServer, directory: Path) -> None:
        self.server = server
        self.file = directory / "sentinel.conf"
        self.log = directory / "sentinel.log"
        # The port of a server that was ours a moment ago.
        with RedisServer() as spare:
            self.port = spare.port

    def __enter__(self) -> "Sentinel":
        settings = f"""
            port {self.port}
            bind 127.0.0.1
            sentinel monitor main 127.0.0.1 {self.server.port} 1
        """
        self.file.write_text(textwrap.dedent(settings))
        command = [self.server.binary, self.file, "--sentinel"]
        self.process = ChildProcess(command, self.log)
        eventually(lambda: "+monitor" in self.log.read_text())
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()

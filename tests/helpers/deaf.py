"""A WebSocket client that never reads."""

import json
import socket
from contextlib import suppress
from typing import Any

from websockets.client import ClientProtocol
from websockets.uri import parse_uri

TIMEOUT = 10


class DeafClient:
    """
    A client that makes the handshake and never reads again.

        with DeafClient(node.ws_url("room", "deaf")) as deaf:
            deaf.send(type="say", text="can you hear me?")
    """

    def __init__(self, url: str, *, receive_buffer: int = 4096) -> None:
        self._protocol = ClientProtocol(parse_uri(url))
        self._socket = socket.socket()
        self._socket.settimeout(TIMEOUT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    def __enter__(self) -> "DeafClient":
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> "DeafClient":
        """Connect and make the handshake; raise `InvalidStatus` when refused."""
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise
        return self

    def send(self, **message: Any) -> None:
        """Send a message as JSON, which blocks once the server stops reading."""
        self._protocol.send_text(json.dumps(message).encode())
        self._flush()

    def read_to_end(self) -> int | None:
        """Read all that was sent after all; return the code of the close, if any."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        with suppress(ConnectionResetError):
            while self._protocol.close_rcvd is None and (
                data := self._socket.recv(1 << 16)
            ):
                self._protocol.receive_data(data)
                self._protocol.events_received()
        received = self._protocol.close_rcvd
        return None if received is None else received.code

    def close(self) -> None:
        """Close the TCP connection with no word of WebSocket."""
        self._socket.close()

    def _handshake(self) -> None:
        uri = self._protocol.uri
        self._socket.connect((uri.host, uri.port))
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        while not self._protocol.events_received():
            # Byte by byte, so that nothing after the handshake is read.
            byte = self._socket.recv(1)
            if not byte:
                raise ConnectionError("the server ended the handshake")
            self._protocol.receive_data(byte)
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._socket.sendall(data)

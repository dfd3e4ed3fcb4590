"""A process of WebSocket clients, driven by JSON lines on stdin.

{"do": "connect", "urls": [...], "count": n for each, "speaks": ..., "at_once": n}
{"do": "burst", "request": text, "frames": n, "senders": n}
    the first clients send the request; answers when all clients together have got so
    many frames
{"do": "wait", "frames": n}     answers when so many frames have come since "connect"
{"do": "close"}
Each answer has the seconds that it took and the seconds of CPU spent here.
"""

import asyncio
import json
import sys
import time

from picows import WSInvalidStatusError, WSListener, WSMsgType, ws_connect

TIMEOUT = 120
#: Seconds after which a refused client comes back.
RETRY = 0.5


class Counter:
    """The frames that all clients have got, and who waits for how many."""

    def __init__(self):
        self.count = 0
        self.goal = None
        self.reached = asyncio.Event()

    def add(self):
        self.count += 1
        if self.count == self.goal:
            self.reached.set()

    async def wait(self, goal):
        self.goal = goal
        self.reached.clear()
        if self.count < goal:
            await asyncio.wait_for(self.reached.wait(), TIMEOUT)


class Client(WSListener):
    """A client of a server that speaks plain WebSocket."""

    def __init__(self, counter):
        self.counter = counter
        self.ready = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport):
        self.transport = transport
        self.ready.set_result(None)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            self.counter.add()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def request(self, text):
        self.transport.send(WSMsgType.TEXT, text.encode())


class SocketIO(Client):
    """A client of Socket.IO 5 over Engine.IO 4, WebSocket only."""

    def on_ws_connected(self, transport):
        self.transport = transport

    def on_ws_frame(self, transport, frame):
        if frame.msg_type != WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        if payload.startswith(b"42"):
            self.counter.add()
        elif payload.startswith(b"0"):
            transport.send(WSMsgType.TEXT, b"40")
        elif payload.startswith(b"40"):
            self.ready.set_result(None)
        elif payload == b"2":
            transport.send(WSMsgType.TEXT, b"3")

    def request(self, text):
        super().request(f"42{json.dumps(['burst', text])}")


class Process:
    """All clients of this process, and the verbs that it understands."""

    def __init__(self):
        self.counter = Counter()
        self.clients = []
        #: Handshakes that a server refused; they were tried again.
        self.refused = 0

    async def connect(self, urls, count, speaks="websocket", at_once=50):
        bound = asyncio.Semaphore(at_once)
        kind = SocketIO if speaks == "socketio" else Client
        self.counter.count = self.refused = 0

        async def connect(url):
            async with bound:
                while True:
                    try:
                        _, client = await ws_connect(lambda: kind(self.counter), url)
                    except WSInvalidStatusError:
                        self.refused += 1
                        await asyncio.sleep(RETRY)
                    else:
                        await client.ready
                        return client

        self.clients += await asyncio.gather(
            *(connect(url) for _ in range(count) for url in urls)
        )

    async def burst(self, request, frames, senders=1):
        self.counter.count = 0
        for client in self.clients[:senders]:
            client.request(request)
        await self.counter.wait(frames)

    async def wait(self, frames):
        await self.counter.wait(frames)

    async def close(self):
        clients, self.clients = self.clients, []
        for client in clients:
            client.transport.send_close(1000)
        for client in clients:
            await client.transport.wait_disconnected()


async def main():
    process = Process()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        arguments = json.loads(line)
        act = getattr(process, arguments.pop("do"))
        start, cpu = time.perf_counter(), time.process_time()
        await act(**arguments)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        answer = {"seconds": seconds, "cpu": cpu, "frames": process.counter.count}
        answer["refused"] = process.refused
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

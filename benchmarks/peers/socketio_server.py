"""The room of application.py with python-socketio and its Redis manager."""

import os

import socketio

manager = socketio.AsyncRedisManager(os.environ["BENCHMARK_REDIS_URL"])
server = socketio.AsyncServer(
    async_mode="asgi", client_manager=manager, cors_allowed_origins="*"
)
application = socketio.ASGIApp(server)


@server.event
async def connect(sid, environ):
    await server.enter_room(sid, "room")


@server.event
async def burst(sid, request):
    count, size, *_ = request.split()
    for _ in range(int(count)):
        await server.emit("message", "x" * int(size), room="room")

"""The room of application.py with bare websockets, one process and no membership."""

import asyncio

from websockets.asyncio.server import broadcast, serve

connections = set()


async def handle(connection):
    connections.add(connection)
    try:
        async for request in connection:
            count, size, *_ = request.split()
            for _ in range(int(count)):
                broadcast(connections, "x" * int(size))
                await asyncio.sleep(0)
    finally:
        connections.remove(connection)


async def main():
    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""An ASGI application that says who it is, to test the cluster without the demo."""

import json
import os
import time
from pathlib import Path


async def application(scope, receive, send):
    """Answer every request with the process id, and log an event for /api/log/."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/api/log/":
        log_event()
    if scope["path"] == "/api/fail/":
        raise ValueError("as you asked")
    body = {"pid": os.getpid(), "path": scope["path"], "layer": layer()}
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def layer():
    return os.environ["CHANNEL_LAYER"], os.environ["REDIS_URL"]


def log_event():
    event = {"event": "created", "group": "room", "revision": 1, "time": time.time()}
    with Path(os.environ["GROUP_EVENT_LOG"]).open("a") as log:
        log.write(json.dumps(event) + "\n" + '{"event": "half a li')

"""What ought to be so, from the clients' own knowledge, and whether it is."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .client import Client
from .cluster import Cluster, Node
from .events import memberships, violations
from .eventually import aeventually

SETTLE = 30
_numbers = itertools.count()


def expected_rooms(clients: Iterable[Client]) -> dict[str, set[str]]:
    """Return who is in which room, by the clients that are open."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for client in clients:
        if client.is_open and client.room is not None:
            rooms[client.room].add(str(client.id))
    return dict(rooms)


async def rooms_by(node: Node) -> dict[str, set[str]]:
    """Return who is in which room, by what one process says; counts must agree."""
    rooms = {}
    listing = (await asyncio.to_thread(node.api, "rooms/"))["rooms"]
    for listed in listing:
        room = await asyncio.to_thread(node.room, listed["name"])
        ids = {member["id"] for member in room["members"]}
        if not len(ids) == room["count"] == listed["count"]:
            return {"disagreement": {str(listed), str(room)}}
        rooms[listed["name"]] = ids
    return rooms


async def settled(
    cluster: Cluster, clients: Sequence[Client], timeout: float = SETTLE
) -> None:
    """Wait until every process' counts and member lists equal the truth."""

    async def disagreement() -> list[Any]:
        truth = expected_rooms(clients)
        said = [(node.name, await rooms_by(node)) for node in cluster.running]
        return [(name, rooms, truth) for name, rooms in said if rooms != truth]

    await aeventually(disagreement, equals=[], timeout=timeout, ignoring=(OSError,))


async def nobody_is_deaf(clients: Sequence[Client], timeout: float = SETTLE) -> None:
    """Wait until what a member says in each room is heard by exactly the members.

    Once is not enough after a fault: the first message may fail with a connection
    that nobody knew was dead, and channels_redis pub/sub takes a second to notice.
    """
    await aeventually(lambda: _who_did_not_hear(clients), equals=[], timeout=timeout)


async def _who_did_not_hear(clients: Sequence[Client]) -> list[Client]:
    text = f"can you hear me, {next(_numbers)}"
    speakers = {client.room: client for client in clients if client.is_open}
    speakers.pop(None, None)
    for speaker in speakers.values():
        await speaker.say(text)
    silent = [
        client
        for client in clients
        if client.is_open and client.room and not await _hears(client, text)
    ]
    strangers = [client for client in clients if client.room is None]
    return silent + [one for one in strangers if _has_heard(one, text)]


async def _hears(client: Client, text: str) -> bool:
    try:
        await client.receive("said", text=text, timeout=2)
    except AssertionError:
        return False
    return True


def _has_heard(client: Client, text: str) -> bool:
    return any(message.get("text") == text for message in client.received)


async def signalled(
    cluster: Cluster, clients: Sequence[Client], timeout: float = SETTLE
) -> None:
    """Wait until the event logs agree with each other and with the truth.

    They may be later than the store: a process whose commit was carried out, and whose
    connection then broke, asks for the answer again before it fires the signals.
    """

    async def disagreement() -> list[Any]:
        events, truth = cluster.events(), expected_rooms(clients)
        found: list[Any] = [*violations(events)]
        told = memberships(events)
        return found if told == truth else [*found, (told, truth)]

    await aeventually(disagreement, equals=[], timeout=timeout)


async def quiet(cluster: Cluster) -> list[dict[str, Any]]:
    """Wait until the event logs agree that all is over, and return the events."""
    await aeventually(
        lambda: violations(cluster.events(), ended=True), equals=[], timeout=SETTLE
    )
    return cluster.events()

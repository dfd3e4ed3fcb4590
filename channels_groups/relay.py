"""From the channel layer to this node's connections."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Iterable

from channels.exceptions import ChannelFull

from . import names
from .connection import Message, to_frame
from .deadline import in_time
from .exceptions import StoreUnavailable
from .receiver import Doing, Receiver, StopReceiving, find_strays, give_up_stray
from .stores.base import Entry
from .thread import OwnThread

if TYPE_CHECKING:
    from .membership import LocalGroup
    from .node import Node

logger = logging.getLogger("channels_groups")

#: Seconds until a call of the layer counts as unanswered.
TIMEOUT = 1.5
#: What a layer raises because of a message that it cannot pack, or hold.
BAD_MESSAGE = (TypeError, ValueError, OverflowError, ChannelFull)


class Relay:
    """One channel of this node for all that the library sends to its groups."""

    def __init__(
        self,
        node: Node,
        shard: int,
        groups: dict[str, LocalGroup],
    ) -> None:
        self._node = node
        self._layer = node.layer
        self._store = node.store
        self._shard = shard
        self._groups = groups
        self._receiver: Receiver | None = None
        self.started = False
        self._heard: dict[str, asyncio.Future[None]] = {}
        self._thread = OwnThread() if self._store.layer_may_block else None
        self._kinds: dict[str, Callable[[Message], Doing | None]] = {
            "groups.send": self._send,
            "groups.event": self._event,
            "groups.change": self._change,
            "groups.close": self._close,
            "groups.close_all": self._close_all,
            "groups.over": self._over,
            "groups.hello": self._hello,
            "groups.stop": self._stop,
        }

    @property
    def channel(self) -> str:
        return self._receiver.channel if self._receiver else ""

    async def start(self) -> None:
        """Take a new channel and read it."""
        if self._receiver is None:
            channel = await self._call(self._layer.new_channel())
            self._receiver = Receiver(self._layer, channel, self._handle)
        if not self._store.layer_confirms:
            # channels_postgres drops what comes before, and would listen twice if
            # another channel were read meanwhile.
            await self._hear_first()
        self.started = True

    async def stop(self) -> None:
        """Stop reading the channel."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            await end_receiver(self._layer, receiver)
        if self._thread is not None:
            await self._thread.stop()

    async def enter(self, group: LocalGroup) -> None:
        """Add this node to the layer's groups of a group, as far as commits do not."""
        own, *plain = self.groups_of(group.name)
        group.entries = [Entry(own, self.channel)]
        for name in plain:
            if group.plain is None:
                channel = await self._call(self._store.new_channel(self._layer, name))
                group.plain = Receiver(self._layer, channel, group.put, beside=True)
                await asyncio.sleep(0)  # Pub/sub must know a channel that is added.
            group.entries.append(Entry(name, group.plain.channel))
        for entry in self._others(group):
            await self._call(self._layer.group_add(*entry))
        if not self._store.layer_confirms:
            await self._hear_in(group)
        group.entered = True

    async def _hear_in(self, group: LocalGroup) -> None:
        """Hear oneself in a group, or leave it, so that the next try enters it anew.

        channels_redis.pubsub subscribes once, and does not notice if two tasks of it
        connected to a server that is back and it went to the connection that is not
        read.
        """
        try:
            await self.hear(group.entries[0].group)
        except StoreUnavailable:
            await self.discard(group.entries[0])
            raise

    async def refresh(self, group: LocalGroup) -> None:
        """Add this node to the layer's groups of a group once more."""
        for entry in group.entries:
            await self._call(self._layer.group_add(*entry))

    async def exit(self, group: LocalGroup) -> None:
        """Take this node out of the layer's groups of a group."""
        group.entered = False
        for entry in self._others(group):
            await self.discard(entry)
        plain, group.plain = group.plain, None
        if plain is not None:
            await plain.stop()

    def abandoned(self, groups: Iterable[LocalGroup]) -> list[Entry]:
        """Return the places of this channel that evictions do not take from it.

        channels_redis pub/sub would keep its subscriptions for it for ever.
        """
        adds = self._store.adds
        entries = [group.entries[0] for group in groups if group.entries]
        return [one for one in entries if not adds(self._shard, one)]

    async def discard(self, entry: Entry) -> None:
        """Take a channel out of a group of the layer."""
        await self._call(self._layer.group_discard(*entry))

    async def give_up_strays(self) -> None:
        """Unsubscribe from what the layer could not be told while it was away."""
        channels, groups = find_strays(self._layer)
        calls = [give_up_stray(self._layer, channel) for channel in channels]
        given_up = [self._call(call) for call in calls]
        await gather_all(given_up + [self._give_up_stray_group(one) for one in groups])

    async def _give_up_stray_group(self, group: str) -> None:
        # A group that somebody enters meanwhile stays subscribed.
        channel = self.channel
        try:
            await self._call(self._layer.group_add(group, channel))
        finally:  # It is remembered in the process even if it was not added.
            await self.discard(Entry(group, channel))

    def groups_of(self, group: str) -> list[str]:
        """Return the layer's groups of a group, the library's own first."""
        if self._node.settings.plain_group_send:
            return [names.own_name(group), names.plain_name(group)]
        return [names.own_name(group)]

    def _others(self, group: LocalGroup) -> list[Entry]:
        """Return the entries that commits do not write."""
        adds = self._store.adds
        return [one for one in group.entries if not adds(self._shard, one)]

    async def _hear_first(self) -> None:
        try:
            await self.hear()
        except StoreUnavailable:
            if self._store.shards > 1 and self._receiver is not None:
                # The next channel may be on another host, which is not away.
                receiver, self._receiver = self._receiver, None
                await receiver.stop()
            raise

    async def hear(self, group: str | None = None) -> None:
        """Send a message to oneself, or to the layer's group, until it is heard."""
        nonce = secrets.token_hex(8)
        heard = self._heard[nonce] = asyncio.get_running_loop().create_future()
        message = {"type": "groups.hello", "nonce": nonce}
        try:
            for _ in range(3):
                if group is None:
                    await self._call(self._layer.send(self.channel, message))
                else:
                    await self._call(self._layer.group_send(group, message))
                if (await asyncio.wait([heard], timeout=TIMEOUT / 3))[0]:
                    return
            raise StoreUnavailable("The channel layer did not carry a message in time.")
        finally:
            del self._heard[nonce]

    async def _call(self, call: Awaitable[Any]) -> Any:
        """Await the layer, in a thread if it may block."""
        if self._thread is not None:
            call = self._thread.run(call)
        return await call_layer(call)

    # What arrives

    def _handle(self, message: Message) -> Doing | None:
        kind = self._kinds.get(message["type"])
        if kind is None:
            what = "A node got a message of unknown type %r."
            extra = {"alias": self._node.alias, "shard": self._shard}
            logger.warning(what, message["type"], extra=extra)
            return None
        return kind(message)

    def _send(self, message: Message) -> Doing | None:
        group = self._groups.get(message["group"])
        if group is None:
            return None
        return group.write(to_frame(message), frozenset(message["exclude"]))

    def _event(self, message: Message) -> None:
        group = self._groups.get(message["group"])
        if group:
            group.put(message["message"], frozenset(message["exclude"]))

    def _change(self, message: Message) -> None:
        group = self._groups.get(message["group"])
        if group:
            self._node.changes.tell(group, message)

    def _close(self, message: Message) -> None:
        group = self._groups.get(message["group"])
        if group:
            group.close(message["code"], message["reason"])

    def _close_all(self, message: Message) -> None:
        self._node.close_all(message["code"], message["reason"])

    def _over(self, message: Message) -> None:
        about = message["group"], message["id"], message["channel_name"]
        self._node.end_lingering(*about)

    def _hello(self, message: Message) -> None:
        heard = self._heard.get(message["nonce"])
        if heard and not heard.done():
            heard.set_result(None)

    def _stop(self, message: Message) -> None:
        raise StopReceiving


async def call_layer(
    call: Awaitable[Any], raises: tuple[type[Exception], ...] = ()
) -> Any:
    """Await the layer for TIMEOUT; the only place that maps its errors.

    ``raises``: what is raised as it is, such as BAD_MESSAGE.
    """
    try:
        return await in_time(call, TIMEOUT)
    except raises:
        raise
    except Exception as error:  # A layer may raise anything.
        why = str(error) or type(error).__name__
        raise StoreUnavailable(f"The channel layer did not answer: {why}.") from error


async def end_receiver(layer: Any, receiver: Receiver) -> None:
    """End a receiver by a message to it, for which its handler raises StopReceiving.

    Cancelling ``receive()`` of channels_redis core while a message arrives would
    lose it or leave a key behind.
    """
    try:
        await call_layer(layer.send(receiver.channel, {"type": "groups.stop"}))
        await receiver.wait(TIMEOUT)
    except StoreUnavailable:
        pass
    await receiver.stop()


async def gather_all(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all, then raise what the first failed with."""
    calls = list(calls)
    if not calls:
        return
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result

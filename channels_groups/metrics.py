"""Metrics for Prometheus; needs ``prometheus_client``, which the extra has.

``register()`` begins to count, once in a process, for instance in ``ready()`` of an
app of yours. Whatever serves your other metrics serves these too. No label has a
value that users choose, so their number stays the same whatever groups there are.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections import Counter as Tally
from contextlib import ExitStack
from typing import Any, Awaitable, Callable, Iterator
from weakref import WeakSet

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from . import manager as managers
from . import node as nodes
from .exceptions import StoreUnavailable
from .meters import METERS, Meter
from .stores.base import BaseStore
from .thread import ask

logger = logging.getLogger("channels_groups")

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
SIZES = (1, 2, 5, 10, 20, 50, 100)

#: What is read when it is asked for.
GAUGES = {
    "channels_groups_groups": "Groups in the whole cluster.",
    "channels_groups_memberships": "Memberships of all groups in the whole cluster.",
    "channels_groups_connections": "Connections of this process, in a group or not.",
}

_registered: WeakSet[CollectorRegistry] = WeakSet()


def register(registry: CollectorRegistry = REGISTRY) -> None:
    """Count from now on what happens in this process, and serve it in a registry.

    To do it again for the same registry changes nothing. ValueError if one of the
    names is taken in the registry; then nothing of it is there.
    """
    if registry in _registered:
        return
    counting = _Counting()
    collectors: list[Any] = [*counting.collectors, _Totals()]
    with ExitStack() as undo:
        for collector in collectors:
            registry.register(collector)
            undo.callback(registry.unregister, collector)
        undo.pop_all()
    _registered.add(registry)
    METERS.append(counting)
    for alias, store in managers._stores.items():
        counting.store_made(alias, store)


class _Counting(Meter):
    """Counts what happens."""

    def __init__(self) -> None:
        def counter(name: str, help: str, *labels: str) -> Counter:
            name = f"channels_groups_{name}"
            return Counter(name, help, ["alias", *labels], registry=None)

        self._signals = {
            "created": counter("created", "Groups that began, told by this process."),
            "join": counter("joins", "Memberships that began in this process."),
            "update": counter("updates", "Changes of members' info in this process."),
            "destroyed": counter(
                "destroyed", "Groups that ended, told by this process."
            ),
        }
        self._leaves = counter(
            "leaves", "Memberships that ended, told by this process.", "reason"
        )
        self._evictions = counter(
            "evictions", "Lost processes that this one has evicted."
        )
        self._slow = counter(
            "slow_connections_closed", "Connections closed with 1013: too far behind."
        )
        self._outages = counter(
            "outages", "Times that the store was found not to answer.", "shard"
        )
        self._unavailable = Gauge(
            "channels_groups_store_unavailable",
            "1 while the store does not answer this process.",
            ["alias", "shard"],
            registry=None,
            multiprocess_mode="livemax",
        )
        self._seconds = Histogram(
            "channels_groups_store_seconds",
            "Seconds that the store's operations take.",
            ["alias", "operation"],
            registry=None,
            buckets=SECONDS,
        )
        self._batches = Histogram(
            "channels_groups_batch_size",
            "Joins, leaves and updates in one commit.",
            ["alias"],
            registry=None,
            buckets=SIZES,
        )
        self.collectors = [
            *self._signals.values(),
            *(self._leaves, self._evictions, self._slow),
            *(self._outages, self._unavailable, self._seconds, self._batches),
        ]

    def store_made(self, alias: str, store: BaseStore) -> None:
        """Measure every operation of the store; it needs to know nothing of it."""
        for name, _ in inspect.getmembers(BaseStore, inspect.iscoroutinefunction):
            measured = self._measure(alias, name, getattr(store, name))
            setattr(store, name, measured)

    def fired(self, alias: str, name: str, reason: str | None) -> None:
        if name == "leave":
            self._leaves.labels(alias, reason).inc()
        else:
            self._signals[name].labels(alias).inc()

    def evicted(self, alias: str) -> None:
        self._evictions.labels(alias).inc()

    def closed_slow(self, alias: str) -> None:
        self._slow.labels(alias).inc()

    def unavailable(self, alias: str, shard: int) -> None:
        self._outages.labels(alias, shard).inc()
        self._unavailable.labels(alias, shard).set(1)

    def available(self, alias: str, shard: int) -> None:
        self._unavailable.labels(alias, shard).set(0)

    def _measure(
        self, alias: str, name: str, operation: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        seconds = self._seconds.labels(alias, name)
        sizes = self._batches.labels(alias) if name == "commit" else None

        @functools.wraps(operation)
        async def measured(*args: Any, **keywords: Any) -> Any:
            if sizes:
                sizes.observe(len(args[3]))
            began = time.perf_counter()
            try:
                return await operation(*args, **keywords)
            finally:
                seconds.observe(time.perf_counter() - began)

        return measured


class _Totals:
    """Asks each store how many groups and memberships there are, at each scrape.

    What does not answer in time is left out. In an async view this blocks the event
    loop meanwhile: serve metrics from a sync one, or by a server of their own.
    """

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield from self._families().values()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = self._families()
        groups, memberships, connections = families.values()
        local = Tally[str]()
        for one in list(nodes._nodes.values()):
            local[one.alias] += len(one.connections)
        for alias in getattr(settings, "CHANNEL_LAYERS", {}):
            connections.add_metric([alias], local[alias])
            try:
                counts = ask(functools.partial(_count, alias))
            except (ImproperlyConfigured, StoreUnavailable):
                # Away, or a layer for other things, which has no store.
                logger.debug("A store was not counted.", exc_info=True)
                continue
            groups.add_metric([alias], counts[0])
            memberships.add_metric([alias], counts[1])
        yield from families.values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        return {
            name: GaugeMetricFamily(name, help, labels=["alias"])
            for name, help in GAUGES.items()
        }


def _count(alias: str) -> tuple[int, int]:
    manager = managers.get_group_manager(alias)
    return manager.group_count(), manager.membership_count()

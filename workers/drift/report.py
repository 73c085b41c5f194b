"""Reads all the systems, so that `domain.drift` can hold them against each other.

Everything is listed, a page at a time, so a fleet of ten thousand costs some hundred calls; the databases
of a cluster are one query. A system that can't be read is reported and left out: the others still count.
The registry is read last (see `domain.drift` on what is under way).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.systems import CustomHostname, StateEntry, Subscription, Systems, TaggedThing
from controlplane.store import cluster, drift
from controlplane.store.cluster import ClusterRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import endpoint_of
from controlplane.workers.jobs.comparison import listed
from controlplane.workers.jobs.intake import created

log = logging.getLogger(__name__)

T = TypeVar("T")

WEBHOOK_SECONDS = 300
"""A subscription younger than this may have its webhook still to come."""


@dataclass(frozen=True, slots=True)
class Read:
    """`unread`: what could not be read, and why. `not_asked`: clusters that may pause and were left alone,
    with what is known of them."""

    systems: Systems
    unread: tuple[str, ...]
    not_asked: tuple[str, ...]


class Reader:
    """One reading of all the systems. A cluster that may pause is asked for its databases while somebody is
    connected to it, so that no question wakes one or keeps it awake; `wake`: in any case."""

    def __init__(self, ctx: Context, *, wake: bool = False) -> None:
        self._ctx = ctx
        self._wake = wake
        self._unread: list[str] = []
        self._not_asked: list[str] = []

    def read(self) -> Read:
        with self._ctx.registry.connection() as conn:
            since = drift.now(conn)
        self._young = since.timestamp() - WEBHOOK_SECONDS
        outside = self._ctx.providers.inventory
        tagged = self._system("AWS tags", lambda: [_tagged(t.arn, t.tags) for t in outside.tagged()])
        states = self._system(
            "Terraform states",
            lambda: [StateEntry(s.stack, s.workspace, s.present, s.locked) for s in outside.states()],
        )
        secrets = self._system("Secrets Manager", lambda: dict(outside.secrets()))
        roles = self._system("IAM", lambda: list(outside.roles()))
        hostnames = self._system("Cloudflare", self._hostnames)
        cache = self._system(
            "the cache",
            lambda: {
                host: None if entry is None else entry.payload
                for host, entry in self._ctx.providers.cache.entries()
            },
        )
        subscriptions = self._system("Stripe", self._subscriptions)
        databases = self._databases()
        with self._ctx.registry.connection() as conn:
            registry = drift.read(conn, since=since)
        systems = Systems(
            registry, tagged, states, secrets, roles, hostnames, cache, subscriptions, databases
        )
        return Read(systems, tuple(self._unread), tuple(self._not_asked))

    def _system(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except ControlPlaneError as error:
            self._unread.append(f"{name}: {error}")
            return None

    def _hostnames(self) -> list[CustomHostname]:
        return [
            CustomHostname(found.id, found.host, found.tenant_id)
            for found in self._ctx.providers.hostnames.list()
            if found.tenant_id is not None
        ]

    def _subscriptions(self) -> dict[str, Subscription]:
        return {
            found.id: Subscription(
                found.id,
                str(found.item.get("status")),
                found.in_step or created(found.item).timestamp() > self._young,
                found.customer,
            )
            for batch in listed(self._ctx)
            for found in batch
        }

    def _databases(self) -> dict[str, Collection[str]]:
        with self._ctx.registry.connection() as conn:
            clusters = cluster.living(conn)
        found: dict[str, Collection[str]] = {}
        for row in clusters:
            at = endpoint_of(row)
            if at is None or row.spec.origin is not None or not row.ready:
                continue
            why = None if self._wake else self._left_alone(row)
            if why is not None:
                self._not_asked.append(f"the databases of {row.id}: {why}")
                continue
            read = partial(self._ctx.providers.databases.names, at)
            names = self._system(f"the databases of {row.id}", read)
            if names is not None:
                found[row.id] = names
        return found

    def _left_alone(self, row: ClusterRow) -> str | None:
        """Why the cluster is not to be asked; None where it is."""
        if row.spec.seconds_until_auto_pause is None:
            return None
        try:
            found = self._ctx.providers.clusters.activity(row.id)
        except ControlPlaneError as error:
            return f"whether it is paused is not known: {error}"
        if found is None:
            return "whether it is paused is not known"
        if found.acu == 0:
            return "it is paused"
        return None if found.connections > 0 else "nobody is connected, and it is about to pause"


def _tagged(arn: str, tags: Mapping[str, str]) -> TaggedThing:
    return TaggedThing(arn, tags.get("tenant"), tags.get("placement"), tags.get("cluster"))

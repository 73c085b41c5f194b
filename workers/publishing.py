"""Routes: decided in the registry, then written into the cache."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from controlplane.domain.errors import Retryable
from controlplane.store import route
from workers.work import TenantWork

log = logging.getLogger(__name__)


def publish_route(work: TenantWork, payload: Mapping[str, Any]) -> None:
    host = payload["host"]
    with work.recording() as conn:
        epoch = route.decide(conn, host, work.facts.row.id, payload)
    if work.ctx.providers.cache.publish({**payload, "epoch": epoch}):
        return
    entry = work.ctx.providers.cache.read(host)
    with work.recording() as conn:
        epoch = route.redraw(conn, host, beyond=epoch if entry is None else entry.epoch)
    log.warning("%s: the cache held a newer epoch than the registry knew, drew %s", host, epoch)
    if not work.ctx.providers.cache.publish({**payload, "epoch": epoch}):
        raise Retryable(f"the cache keeps a newer entry for {host}")

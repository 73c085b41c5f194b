"""Delivers the outbox of notifications: one try each, then a growing pause, and after the last it is dead.

One worker of the fleet is at it at a time, since it is one job, and it stops at the first that fails: a
receiver that is down costs one worker some seconds a pass and holds up no tenant. A worker that dies between
the answer and its record delivers once more, under the same id: receivers know it by `webhook-id`. Where
nobody has named an address there is nobody to tell, and the log line that was written with the notification
is all.
"""

from __future__ import annotations

import logging
import random
import time

from controlplane.domain.errors import ControlPlaneError, Retryable
from controlplane.domain.notification import ATTEMPTS, NotificationState, backoff
from controlplane.store import notification
from controlplane.store.notification import NotificationRow
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)

PASS_SECONDS = 15.0


def deliver(ctx: Context) -> int:
    """Deliver what is due, until one fails or the pass's time is over; how many were tried. Raises
    RegistryUnavailable."""
    until = time.monotonic() + PASS_SECONDS
    tried = 0
    while time.monotonic() < until:
        with ctx.registry.connection() as conn:
            due = notification.next_due(conn)
        if due is None:
            break
        tried += 1
        if not _try(ctx, due):
            break
    return tried


def _try(ctx: Context, due: NotificationRow) -> bool:
    if ctx.webhook_sink is None:
        why = "no address is set (CONTROLPLANE_NOTIFICATION_URL)"
        _finish(ctx, due, NotificationState.NO_DESTINATION, why)
        return True
    try:
        answer = ctx.webhook_sink.deliver(due.id, due.payload)
    except ControlPlaneError as error:
        _put_off(ctx, due, error)
        return False
    _finish(ctx, due, NotificationState.DELIVERED, answer)
    return True


def _put_off(ctx: Context, due: NotificationRow, error: ControlPlaneError) -> None:
    if due.tries >= ATTEMPTS:
        log.warning("notification %s is given up after %d tries: %s", due.id, due.tries, error)
        _finish(ctx, due, NotificationState.DEAD, str(error))
        return
    wait = backoff(due.tries, jitter=random.random())  # noqa: S311 — spreads load, guards nothing
    asked = error.after if isinstance(error, Retryable) else None
    with ctx.registry.connection() as conn:
        notification.put_off(conn, due.id, after=max(wait, asked or 0.0), answer=str(error))


def _finish(ctx: Context, due: NotificationRow, state: NotificationState, answer: str) -> None:
    with ctx.registry.connection() as conn:
        notification.finish(conn, due.id, state, answer=answer)

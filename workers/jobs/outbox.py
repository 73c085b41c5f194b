"""Delivers the outbox of notifications: one try each, then a growing pause, and after the last it is dead.

One worker of the fleet is at it at a time, and it stops at the first that fails: a receiver that is down
costs one worker some seconds a sweep and holds up no tenant. A worker that dies between the answer and its
record delivers once more, under the same id: receivers know it by `webhook-id`. Where nobody has named an
address there is nobody to tell, and the log line that was written with the notification is all.
"""

from __future__ import annotations

import logging
import random
import time

from controlplane import task_names
from controlplane.domain.errors import ControlPlaneError, LeaseLost, Retryable
from controlplane.domain.notification import ATTEMPTS, NotificationState, backoff
from controlplane.store import notification
from controlplane.store.notification import NotificationRow
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)

TASK = task_names.DELIVER_NOTIFICATIONS
HOLD = 60.0
PASS_SECONDS = 15.0


def deliver(ctx: Context) -> int:
    """Deliver what is due, until one fails or the pass's time is over; how many were tried. Raises
    RegistryUnavailable."""
    until = time.monotonic() + PASS_SECONDS
    tried = 0
    while time.monotonic() < until:
        with ctx.registry.connection() as conn:
            taken = notification.take(conn, hold=HOLD)
        if taken is None:
            break
        tried += 1
        try:
            if not _try(ctx, taken):
                break
        except LeaseLost as error:
            log.warning("notification %s given up: %s", taken.id, error)
    return tried


def _try(ctx: Context, taken: NotificationRow) -> bool:
    if ctx.webhook_sink is None:
        why = "no address is set (CONTROLPLANE_NOTIFICATION_URL)"
        _finish(ctx, taken, NotificationState.NO_DESTINATION, why)
        return True
    try:
        answer = ctx.webhook_sink.deliver(taken.id, taken.payload)
    except ControlPlaneError as error:
        _put_back(ctx, taken, error)
        return False
    _finish(ctx, taken, NotificationState.DELIVERED, answer)
    return True


def _put_back(ctx: Context, taken: NotificationRow, error: ControlPlaneError) -> None:
    if taken.attempts >= ATTEMPTS:
        log.warning("notification %s is given up after %d tries: %s", taken.id, taken.attempts, error)
        _finish(ctx, taken, NotificationState.DEAD, str(error))
        return
    wait = backoff(taken.attempts, jitter=random.random())  # noqa: S311 — spreads load, guards nothing
    asked = error.after if isinstance(error, Retryable) else None
    with ctx.registry.connection() as conn:
        notification.put_back(conn, taken.id, after=max(wait, asked or 0.0), answer=str(error))


def _finish(ctx: Context, taken: NotificationRow, state: NotificationState, answer: str) -> None:
    with ctx.registry.connection() as conn:
        notification.finish(conn, taken.id, state, answer=answer)

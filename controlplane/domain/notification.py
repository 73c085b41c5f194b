"""Notifications to the operator's systems, and how a notification is signed. Pure.

Signed after the Standard Webhooks specification (standardwebhooks.com, "Signature scheme"): the headers
`webhook-id`, `webhook-timestamp` and `webhook-signature`, whose value is `v1,` and the base64 of the
HMAC-SHA256 over `id.timestamp.body`. While a secret is being replaced every live one signs, so a receiver
may change over at any moment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from enum import StrEnum

from controlplane.domain.state import State

ATTEMPTS = 16
BACKOFF_FIRST = 5.0
BACKOFF_CAP = 6 * 3600.0


class NotificationState(State):
    """`dead`: given up after its last attempt. `no_destination`: there was no address to tell it to. A person
    may have what has ended delivered again."""

    WAITING = "waiting", "delivered", "dead", "no_destination"
    DELIVERED = "delivered", "waiting"
    DEAD = "dead", "waiting"
    NO_DESTINATION = "no_destination", "waiting"


class NotificationKind(StrEnum):
    READY = "ready"  # its first page can be opened
    SUSPENDED = "suspended"  # it is blocked
    RESUMED = "resumed"  # it is served again
    CLOSING = "closing"  # its contracts have ended; data is kept until `purge_after`
    PURGED = "purged"  # nothing is left of it
    NEEDS_ATTENTION = "needs_attention"  # a person must look, `runbook` says where
    TRIAL_ENDING = "trial_ending"  # within three days


def headers(notification_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """`timestamp`: seconds since 1970, of this try. `secrets`: the keys themselves, newest first."""
    signed = b".".join((notification_id.encode(), str(timestamp).encode(), body))
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in secrets]
    return {
        "webhook-id": notification_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def backoff(attempts: int, *, jitter: float) -> float:
    """Seconds until the next try: four times as long each time, from 5 s to 6 h, spread over the upper
    half; ATTEMPTS tries reach over more than a day. `jitter` is drawn by the caller from [0, 1)."""
    ceiling = min(BACKOFF_CAP, BACKOFF_FIRST * 4.0 ** min(max(attempts - 1, 0), 20))
    return ceiling / 2 + ceiling / 2 * jitter

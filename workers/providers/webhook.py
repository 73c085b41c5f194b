"""Tells the operator's own system what happened to a tenant: a signed POST, after Standard Webhooks.

One try and no more: when to come again is the outbox's business. A redirect is not followed, since it could
lead anywhere, and the answer's body is not read: its status says all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from controlplane.domain import notification
from controlplane.domain.errors import Retryable
from controlplane.workers.providers import retry_after

TIMEOUT = httpx.Timeout(10.0, connect=5.0)  # seconds


class Webhook:
    """`ports.WebhookSink`. `url`: https, or http on this machine. `secrets`: the keys, newest first."""

    def __init__(self, url: str, secrets: Sequence[bytes], *, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._secrets = tuple(secrets)
        self._clock = clock
        self._http = httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    def deliver(self, notification_id: str, payload: Mapping[str, Any]) -> str:
        body = json.dumps(payload, separators=(",", ":")).encode()
        headers = notification.headers(notification_id, int(self._clock()), body, self._secrets)
        headers |= {"Content-Type": "application/json", "User-Agent": "tenant-controlplane"}
        try:
            with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
                said, after = f"HTTP {answer.status_code}", retry_after.seconds(answer.headers)
                if answer.is_success:
                    return said
        except httpx.TimeoutException as error:
            raise Retryable("it did not answer in time") from error
        except httpx.HTTPError as error:
            raise Retryable(f"it can't be reached: {type(error).__name__}") from error
        raise Retryable(said, after=after)

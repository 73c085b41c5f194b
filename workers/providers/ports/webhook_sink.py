"""Where notifications go: the operator's systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class WebhookSink(Protocol):
    """The operator's own system, which wants to hear what happens to tenants."""

    def deliver(self, notification_id: str, payload: Mapping[str, Any]) -> str:
        """One try; what was answered. Not idempotent: whoever listens knows a notification by its id. Raises
        Retryable, with `after` where it was asked for."""
        ...

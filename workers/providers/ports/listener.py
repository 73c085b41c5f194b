"""The company's own systems, told of notices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Listener(Protocol):
    """The company's own system, which wants to hear what happens to tenants."""

    def tell(self, notice_id: str, payload: Mapping[str, Any]) -> str:
        """One try; what was answered. Not idempotent: whoever listens knows a notice by its id. Raises
        Retryable, with `after` where it was asked for."""
        ...

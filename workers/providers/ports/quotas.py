"""What the account may still have."""

from __future__ import annotations

from typing import Protocol

from controlplane.domain.pool import Quota


class Quotas(Protocol):
    def left(self, *, max_age: float = 0.0) -> Quota:
        """An answer of up to `max_age` seconds ago will do."""
        ...

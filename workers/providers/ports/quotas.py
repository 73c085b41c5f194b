"""What the account has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class QuotaRoom:
    """How many more clusters and instances the account may have in this region; None where AWS does
    not say."""

    clusters: int | None
    instances: int | None


class Quotas(Protocol):
    def room(self, *, max_age: float = 0.0) -> QuotaRoom:
        """An answer of up to `max_age` seconds ago will do."""
        ...

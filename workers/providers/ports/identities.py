"""Tenants' roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Identities(Protocol):
    def role_exists(self, name: str) -> bool: ...

    def readable(self, role: str, secrets: Sequence[str]) -> list[str]:
        """Which of these secrets (ARNs, at most 50) AWS would let this role read, by its policies and its
        boundary: simulated, nothing is read. Raises NotFound where there is no such role."""
        ...

"""The clusters' roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from controlplane.workers.providers.ports.inventory import Tagged


class Identities(Protocol):
    def role_exists(self, name: str) -> bool: ...

    def readable(self, role: str, placement: str | None, secrets: Sequence[Tagged]) -> list[str]:
        """Which of these secrets (1 to 50, with the tags that they bear) a session of this role could read
        that is tagged with `placement`, or not tagged (None), by the role's policies and its boundary:
        simulated, nothing is read. Their ARNs. Raises NotFound where there is no such role."""
        ...

"""A copy of a tenant's data outside its database: a purge's, or an export.

making ──▶ kept ──▶ deleted
   └─────▶ failed
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.domain.state import State


class CopyKind(StrEnum):
    DUMP = "dump"
    SNAPSHOT = "snapshot"


class CopyState(State):
    MAKING = "making"
    KEPT = "kept", "making"
    FAILED = "failed", "making"
    DELETED = "deleted", "kept"

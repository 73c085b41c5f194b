"""What an operator's word may be, over what billing says or over what is being done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HoldKind(StrEnum):
    """`freeze`: no job is begun. Of a tenant alone: `suspend`, whoever pays; `serve` in spite of a debt or of
    an end; `plan`, another one than is paid for."""

    FREEZE = "freeze"
    SUSPEND = "suspend"
    SERVE = "serve"
    PLAN = "plan"


@dataclass(frozen=True, slots=True)
class Hold:
    """One that is in force. `plan`: of that kind."""

    kind: HoldKind
    plan: str | None = None

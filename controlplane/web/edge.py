"""What the views are handed: everything that reaches beyond the process, and nothing else.

The composition root (`controlplane/wsgi.py`) fills it; tests fill it with a real registry and a list
in place of the broker. `notify` and `sign` are callables because the packages behind them (Celery,
the data plane's contract) are not this layer's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.domain.job import Lane
from controlplane.store.registry import Registry
from controlplane.web.auth import Guard

Notify = Callable[[Lane], None]
"""Say that the lane has work. A lost wake-up costs a second: workers look for themselves."""

Sign = Callable[[Mapping[str, Any]], str]
"""The signed TenantConfig v2 entry of a payload, issued now."""


@dataclass(frozen=True, slots=True)
class Edge:
    """`clock`: seconds since 1970, for signatures' age and running steps."""

    registry: Registry
    guard: Guard
    notify: Notify
    sign: Sign
    clock: Callable[[], float]
    zone: str

"""What one subscription alone asks for: read as Stripe has it, decided by the catalogue."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from controlplane.domain.billing import contract_of
from controlplane.domain.catalogue import Catalogue
from controlplane.domain.contract import Contract, Decision, Park, decide


def decided(subscription: Any, catalogue: Catalogue, *, platform_zone: str, now: datetime) -> Decision:
    read = contract_of(subscription)
    if isinstance(read, Park):
        return read
    assert Contract.from_json(read.to_json()) == read
    return decide(read, catalogue, platform_zone=platform_zone, now=now)

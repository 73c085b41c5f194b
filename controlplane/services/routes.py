"""Where hosts lead, as the registry decided it: what the config cache is filled from."""

from __future__ import annotations

from typing import Any

from controlplane.domain.errors import NotFound
from controlplane.store import route
from controlplane.store.registry import Connection


class UnknownHost(NotFound):
    """No tenant is served at this host."""


def resolve(conn: Connection, host: str) -> dict[str, Any]:
    """The routing payload of a normalised host, with its epoch. Raises UnknownHost, also where the
    tenant that it led to is gone."""
    found = route.find(conn, host)
    if found is None or found[0].get("status") == "gone":
        raise UnknownHost(f"no tenant is served at {host}")
    payload, epoch = found
    return {**payload, "epoch": epoch}

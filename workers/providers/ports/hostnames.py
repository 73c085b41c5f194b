"""Custom hostnames at Cloudflare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    kind: str  # "txt" | "cname" | "http"
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class HostnameDescription:
    """A custom hostname. Ready means both statuses are "active"."""

    id: str
    host: str
    tenant_id: str | None  # from our custom metadata; None where it is not ours
    status: str
    ssl_status: str
    records: tuple[ValidationRecord, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        return self.status == "active" and self.ssl_status == "active"


class CustomHostnames(Protocol):
    def find(self, host: str) -> HostnameDescription | None: ...

    def create(self, host: str, tenant_id: str) -> HostnameDescription:
        """Register, or adopt what is there and ours. Raises NeedsHuman("hostname-conflict") where it
        belongs to somebody else, Refused for a host that Cloudflare will not take, Retryable
        (with `after` from Retry-After) on 429 and 5xx."""
        ...

    def list(self) -> Iterator[HostnameDescription]:
        """Every custom hostname of the zone, a page at a time."""
        ...

    def delete(self, hostname_id: str) -> None:
        """Gone already is success."""
        ...

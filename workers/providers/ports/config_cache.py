"""The entries that data planes read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """What the cache holds for a host: the payload of TenantConfig v2, verified, as it was decided; and until
    when it is believed, in seconds since 1970."""

    host: str
    epoch: int
    payload: dict[str, Any]
    not_after: int


class ConfigCache(Protocol):
    """TenantConfig v2 entries, signed. The data plane's `dataplane.tenant_config` is the format's home."""

    def read(self, host: str) -> PublishedConfig | None:
        """None where there is no entry, or none that our key signed."""
        ...

    def publish(self, payload: dict[str, Any], *, instead_of: int | None = None) -> bool:
        """Issue, sign and store the entry of `payload["host"]`, then send the change invalidation. An entry
        with a higher epoch stays (compared and set in one step on the server); False then. But one of exactly
        `instead_of` is not believed and does not stay."""
        ...

    def publish_many(self, payloads: Iterable[dict[str, Any]], *, newer: list[str] | None = None) -> int:
        """`publish` for the periodic full pass, tombstones included; how many entries were written.
        Entries that are the same already are passed over without an invalidation, until they are to be issued
        anew. Hosts whose entry is newer
        and stays are appended to `newer`. What can't be written for one host is raised once all others
        are."""
        ...

    def entries(self) -> Iterator[tuple[str, PublishedConfig | None]]:
        """Every host that has an entry, tombstones included, with None for one that our keys did not
        sign; in no order, one that changes meanwhile may be missing or come twice."""
        ...

    def notify_credential(self, tenant_id: str) -> None:
        """Tell the data planes that the tenant's database login has changed. Who does not hear it
        finds out when the old login is refused."""
        ...

    def remove(self, host: str, *, epoch: int, instead_of: int | None = None) -> bool:
        """Leave a tombstone with this epoch, so that a late `publish` of a lower one loses. `instead_of`:
        as for `publish`."""
        ...

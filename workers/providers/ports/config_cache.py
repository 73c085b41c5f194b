"""The entries that data planes read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """What the cache holds for a host: the payload of TenantConfig v1, verified."""

    host: str
    epoch: int
    payload: dict[str, Any]


class ConfigCache(Protocol):
    """TenantConfig v1 entries, signed. The data plane's `dataplane.contract` is the format's home."""

    def read(self, host: str) -> PublishedConfig | None:
        """None where there is no entry, or none that our key signed."""
        ...

    def publish(self, payload: dict[str, Any]) -> bool:
        """Sign and store the entry of `payload["host"]`, then send the change notice. An entry with
        a higher epoch stays (compared and set in one step on the server); False then."""
        ...

    def publish_many(self, payloads: Iterable[dict[str, Any]]) -> int:
        """`publish` for the periodic full pass, tombstones included; how many entries were written.
        Entries that are the same already are passed over without a notice."""
        ...

    def entries(self) -> Iterator[tuple[str, PublishedConfig | None]]:
        """Every host that has an entry, tombstones included, with None for one that our keys did not
        sign; in no order, one that changes meanwhile may be missing or come twice."""
        ...

    def notify_credential(self, tenant_id: str) -> None:
        """Tell the data planes that the tenant's database login has changed. Who does not hear it
        finds out when the old login is refused."""
        ...

    def remove(self, host: str, *, epoch: int) -> bool:
        """Leave a tombstone with this epoch, so that a late `publish` of a lower one loses."""
        ...

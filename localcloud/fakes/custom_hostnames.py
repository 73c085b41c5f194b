"""`ports.CustomHostnames` without Cloudflare: hostnames become ready after so many polls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Refused
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import HostnameDescription, ValidationRecord

HOSTNAME, NUMBER = "hostname", "hostname-number"
REFUSED_ENDINGS = (".test", ".example", ".invalid", ".localhost", "example.com", "example.net", "example.org")


class FakeCustomHostnames:
    """`ready_after`: polls (`find`) until a hostname and its certificate are active; the
    certificate's records appear with the second. `fail` makes the next calls raise."""

    def __init__(self, world: World, *, ready_after: int = 3) -> None:
        self.world = world
        self.ready_after = ready_after
        self._errors: list[ControlPlaneError] = []

    def fail(self, *errors: ControlPlaneError) -> None:
        """The next call raises the first of these, the one after it the second, and so on."""
        self._errors += errors

    def put(self, host: str, *, tenant_id: str | None) -> str:
        """A hostname that somebody else made; its id. None: without our metadata."""
        return str(self._make(host, tenant_id)["id"])

    def stick(self, host: str) -> None:
        """The customer never places its records: this hostname stays pending."""
        self.world.put(HOSTNAME, host, (self.world.get(HOSTNAME, host) or {}) | {"stuck": True})

    def hosts(self) -> dict[str, str | None]:
        """Host → tenant id, of all there are."""
        return {host: item["tenant_id"] for host, item in self.world.all(HOSTNAME).items()}

    def find(self, host: str) -> HostnameDescription | None:
        with self.world.call("hostnames.find"):
            self._reach()
            return self._polled(host.lower())

    def list(self) -> Iterator[HostnameDescription]:
        with self.world.call("hostnames.list"):
            self._reach()
            yield from (self._observed(item) for item in self.world.all(HOSTNAME).values())

    def create(self, host: str, tenant_id: str) -> HostnameDescription:
        with self.world.call("hostnames.create"):
            self._reach()
            wanted = host.lower()
            if "." not in wanted or not wanted.isascii() or wanted.endswith(REFUSED_ENDINGS):
                raise Refused(f"Cloudflare will not take the host {wanted}")
            item = self.world.get(HOSTNAME, wanted)
            if item is not None and item["tenant_id"] != tenant_id:
                raise NeedsHuman(f"{wanted} exists in the zone", runbook="hostname-conflict")
            return self._observed(item or self._make(wanted, tenant_id))

    def delete(self, hostname_id: str) -> None:
        with self.world.call("hostnames.delete"):
            self._reach()
            host = self._host_of(hostname_id)
            if host is not None:
                self.world.drop(HOSTNAME, host)

    def _make(self, host: str, tenant_id: str | None) -> dict[str, Any]:
        number = self.world.count(NUMBER, "")
        item = {
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "host": host,
            "tenant_id": tenant_id,
            "polls": 0,
            "stuck": False,
        }
        self.world.put(HOSTNAME, host, item)
        return item

    def _host_of(self, hostname_id: str) -> str | None:
        return next((h for h, item in self.world.all(HOSTNAME).items() if item["id"] == hostname_id), None)

    def _polled(self, host: str) -> HostnameDescription | None:
        item = self.world.get(HOSTNAME, host)
        if item is None:
            return None
        item["polls"] += 1
        self.world.put(HOSTNAME, host, item)
        return self._observed(item)

    def _observed(self, item: dict[str, Any]) -> HostnameDescription:
        host, polls = item["host"], item["polls"]
        ready = polls >= self.ready_after and not item["stuck"]
        records = [ValidationRecord("txt", f"_cf-custom-hostname.{host}", f"owner-{item['id']}")]
        if polls >= 2:
            url = f"http://{host}/.well-known/acme-challenge/{item['id']}"
            records.append(ValidationRecord("http", url, f"challenge-{item['id']}"))
        pending = "pending_validation" if polls >= 2 else "initializing"
        return HostnameDescription(
            id=item["id"],
            host=host,
            tenant_id=item["tenant_id"],
            status="active" if ready else "pending",
            ssl_status="active" if ready else pending,
            records=() if ready else tuple(records),
            errors=("the ownership verification token was not found",) if item["stuck"] else (),
        )

    def _reach(self) -> None:
        if self._errors:
            raise self._errors.pop(0)

"""What a customer can see of a box and do in it: open a page, write a row, demand the deletion of its data.

A page is answered as an application on the data plane answers it: the host's entry in the config cache says
whether it is served and where the database is, and the rows are read there under the login of its secret.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controlplane.actions.action import run
from controlplane.domain.errors import ControlPlaneError
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.simulator.box import ZONE, Box
from controlplane.localcloud.simulator.oracle import Deletion, Page, Seen
from controlplane.store import cluster
from controlplane.workers.engine.record import endpoint_of
from controlplane.workers.providers.ports import ClusterEndpoint, Credential

_SEEN = {
    "active": Seen.SERVED,
    "suspended": Seen.SUSPENDED,
    "provisioning": Seen.BEING_MADE,
    "gone": Seen.NOT_THERE,
}


class Visitor:
    def __init__(self, box: Box) -> None:
        self._box = box
        self._databases = FakeDatabases(box.world, box.ctx.providers.secrets)

    def page(self, host: str) -> Page:
        with self._box.calm():
            entry = self._box.ctx.providers.cache.read(host)
            if entry is None:
                return Page(Seen.NOT_THERE)
            seen, payload = _SEEN[entry.payload["status"]], entry.payload
            if seen is not Seen.SERVED:
                return Page(seen)
            try:
                rows = self._databases.content(*self._way(payload["database"])).get("rows", ())
            except ControlPlaneError:
                return Page(Seen.BROKEN)
        return Page(seen, tuple(rows), payload["plan"], payload["profile"]["quantity"])

    def write(self, host: str, row: str) -> bool:
        """False where the page takes none."""
        with self._box.calm():
            entry = self._box.ctx.providers.cache.read(host)
            if entry is None or entry.payload["status"] != "active":
                return False
            try:
                self._databases.write(*self._way(entry.payload["database"]), row)
            except ControlPlaneError:
                return False
        return True

    def demand_deletion(self, host: str) -> None:
        """One person asks for it and another approves, where it is not refused."""
        with self._box.calm(), self._box.ctx.registry.connection() as conn:
            slug = host.removesuffix(f".{ZONE}")
            row = conn.execute("SELECT id FROM tenant WHERE slug = %s", [slug]).fetchone()
            if row is None:
                return
            why = "the customer demands it"
            try:
                asked = run(conn, "purge", row["id"], actor="anna", reason=why, early=True).purge
                if asked is not None:
                    run(conn, "approve-purge", row["id"], actor="bert", reason=why, digest=asked.digest)
            except ControlPlaneError:
                return

    def deletions(self) -> dict[str, Deletion]:
        """Of what is behind each host of the platform, where one was asked for."""
        with self._box.ctx.registry.connection() as conn:
            rows = conn.execute(
                "SELECT t.slug, p.begun_at IS NOT NULL AS begun FROM purge p JOIN tenant t"
                " ON t.id = p.tenant_id WHERE p.state <> 'withdrawn'"
            ).fetchall()
        return {f"{row['slug']}.{ZONE}": Deletion.BEGUN if row["begun"] else Deletion.ASKED for row in rows}

    def told(self) -> dict[str, list[str]]:
        """By customer, the hosts that it was told are ready."""
        with self._box.ctx.registry.connection() as conn:
            rows = conn.execute(
                "SELECT payload->'data' AS data FROM notification WHERE kind = 'ready' ORDER BY seq"
            ).fetchall()
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["data"]["customer"], []).append(f"{row['data']['slug']}.{ZONE}")
        return found

    def _way(self, place: dict[str, Any]) -> tuple[ClusterEndpoint, Credential]:
        with self._box.ctx.registry.connection() as conn:
            clusters = [endpoint_of(found) for found in cluster.living(conn)]
        at = next(at for at in clusters if at is not None and at.host == place["host"])
        credential = self._box.ctx.providers.secrets.read(place["secret"])
        return at, replace(credential, dbname=place["name"])

"""The fake server's control calls from Python, for tests and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane.localcloud.servers.fake_http.client import ControlClient


class CloudflareControl(ControlClient):
    """Plays the customer's DNS, the plan and the network. Close it, or use it in a `with`."""

    def set_faults(
        self, *, api: Sequence[dict[str, Any]] | None = None, unsuccessful: int | None = None
    ) -> dict[str, Any]:
        """Replace the fault switches of the API (see `controlplane.localcloud.servers.fake_http.faults`),
        or let that many answers say 200 and `success: false`."""
        wanted = {"api": None if api is None else list(api), "unsuccessful": unsuccessful}
        return self.call(
            "POST", "/faults", {key: value for key, value in wanted.items() if value is not None}
        )

    def set_zone(self, **wanted: Any) -> dict[str, Any]:
        """`quota`, `metadata` (does the plan have it?), `rate_limit`, `rate_window`."""
        return self.call("POST", "/zone", wanted)

    def set_hostname(self, host: str, **wanted: Any) -> dict[str, Any]:
        """`stuck` (the records are never placed), `status`, `ssl_status`, `errors`."""
        return self.call("POST", f"/hostnames/{host}", wanted)

"""The fake server's control calls from Python, for tests and the demo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from controlplane.localcloud.servers.fake_http.client import ControlClient

BUSY = ("pending", "sending")


class StripeControl(ControlClient):
    """Plays customer, bank and network. Close it, or use it in a `with`."""

    def set_faults(
        self, *, api: Sequence[dict[str, Any]] | None = None, deliveries: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Replace the fault switches of the API, of the deliveries, or both; see
        `servers.fake_http.faults` and `stripe.delivery_faults` in `controlplane.localcloud`."""
        wanted = {"api": None if api is None else list(api), "deliveries": deliveries}
        body = {key: value for key, value in wanted.items() if value is not None}
        return self.call("POST", "/faults", body)

    def advance(self, seconds: float) -> dict[str, Any]:
        """Move billing time on; trials end, periods renew, retries become due."""
        return self.call("POST", "/clock", {"advance_seconds": seconds})

    def set_status(self, subscription_id: str, status: str) -> dict[str, Any]:
        """Force a subscription's status, with the events that would have led there."""
        return self.call("POST", f"/subscriptions/{subscription_id}/status", {"status": status})

    def dispute(self, subscription_id: str, *, warning: bool = False) -> dict[str, Any]:
        """The bank of who pays for it takes the money back or, `warning`, says that it may be fraud."""
        return self.call("POST", f"/subscriptions/{subscription_id}/dispute", {"warning": warning})

    def complete_checkout(self, session_id: str, **form: Any) -> dict[str, Any]:
        """Submit a checkout session as its customer: `email`, `name`, `card`, `delayed`,
        `custom_fields`."""
        return self.call("POST", f"/checkout/sessions/{session_id}/complete", form)

    def settle_checkout(self, session_id: str, *, succeeded: bool) -> dict[str, Any]:
        """Say what came of a delayed payment."""
        return self.call("POST", f"/checkout/sessions/{session_id}/payment", {"succeeded": succeeded})

    def roll_secret(self, endpoint_id: str, *, overlap_seconds: float = 86400) -> str:
        """A new signing secret; the old one signs too until the overlap is over."""
        body = {"overlap_seconds": overlap_seconds}
        secret: str = self.call("POST", f"/webhook_endpoints/{endpoint_id}/roll_secret", body)["secret"]
        return secret

    def deliveries(self, **filters: str) -> list[dict[str, Any]]:
        """All deliveries, oldest first; `state`, `event`, `endpoint` narrow them."""
        query = "&".join(f"{key}={value}" for key, value in filters.items())
        found: list[dict[str, Any]] = self.call("GET", f"/deliveries?{query}")["data"]
        return found

    def release(self, *, seed: int | None = None) -> int:
        """Let held deliveries go, shuffled; how many went."""
        body = {} if seed is None else {"seed": seed}
        released: int = self.call("POST", "/deliveries/release", body)["released"]
        return released

    def resend(self, event_id: str) -> int:
        """Send an event again to every endpoint; to how many."""
        queued: int = self.call("POST", f"/events/{event_id}/resend")["queued"]
        return queued

    def wait_until_delivered(self, *, timeout: float = 30) -> None:
        """Return once nothing is on its way (held deliveries don't count). Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            counts = self.call("GET", "/deliveries/counts")
            waiting = sum(counts[state] for state in BUSY)
            if waiting == 0:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{waiting} webhook deliveries still on their way after {timeout:g} s")
            time.sleep(0.02)

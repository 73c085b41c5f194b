"""A stand-in's control calls from Python, for tests and the demo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

BUSY = ("pending", "sending")


class StripeControl:
    """Talks to `/_localcloud` of a running stand-in. Close it, or use it in a `with`."""

    def __init__(self, url: str) -> None:
        """`url`: where the stand-in listens, as http://127.0.0.1:12111."""
        self._client = httpx.Client(base_url=f"{url}/_localcloud", timeout=150, trust_env=False)

    def health(self) -> dict[str, Any]:
        return self._call("GET", "/health")

    def set_faults(
        self, *, api: Sequence[dict[str, Any]] | None = None, deliveries: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Replace the fault switches of the API, of the deliveries, or both; see
        `localcloud.standin.faults` and `localcloud.stripe.delivery_faults`."""
        wanted = {"api": None if api is None else list(api), "deliveries": deliveries}
        body = {key: value for key, value in wanted.items() if value is not None}
        return self._call("POST", "/faults", body)

    def clear_faults(self) -> None:
        self._call("DELETE", "/faults")

    def advance(self, seconds: float) -> dict[str, Any]:
        """Move billing time on; trials end, periods renew, retries become due."""
        return self._call("POST", "/clock", {"advance_seconds": seconds})

    def set_status(self, subscription_id: str, status: str) -> dict[str, Any]:
        """Force a subscription's status, with the events that would have led there."""
        return self._call("POST", f"/subscriptions/{subscription_id}/status", {"status": status})

    def complete_checkout(self, session_id: str, **form: Any) -> dict[str, Any]:
        """Submit a checkout session as its customer: `email`, `name`, `card`, `delayed`,
        `custom_fields`."""
        return self._call("POST", f"/checkout/sessions/{session_id}/complete", form)

    def settle_checkout(self, session_id: str, *, succeeded: bool) -> dict[str, Any]:
        """Say what came of a delayed payment."""
        return self._call("POST", f"/checkout/sessions/{session_id}/payment", {"succeeded": succeeded})

    def roll_secret(self, endpoint_id: str, *, overlap_seconds: float = 86400) -> str:
        """A new signing secret; the old one signs too until the overlap is over."""
        body = {"overlap_seconds": overlap_seconds}
        secret: str = self._call("POST", f"/webhook_endpoints/{endpoint_id}/roll_secret", body)["secret"]
        return secret

    def deliveries(self, **filters: str) -> list[dict[str, Any]]:
        """All deliveries, oldest first; `state`, `event`, `endpoint` narrow them."""
        query = "&".join(f"{key}={value}" for key, value in filters.items())
        found: list[dict[str, Any]] = self._call("GET", f"/deliveries?{query}")["data"]
        return found

    def release(self, *, seed: int | None = None) -> int:
        """Let held deliveries go, shuffled; how many went."""
        body = {} if seed is None else {"seed": seed}
        released: int = self._call("POST", "/deliveries/release", body)["released"]
        return released

    def resend(self, event_id: str) -> int:
        """Send an event again to every endpoint; to how many."""
        queued: int = self._call("POST", f"/events/{event_id}/resend")["queued"]
        return queued

    def wait_until_delivered(self, *, timeout: float = 30) -> None:
        """Return once nothing is on its way (held deliveries don't count). Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            counts = self._call("GET", "/deliveries")["counts"]
            waiting = sum(counts[state] for state in BUSY)
            if waiting == 0:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{waiting} webhook deliveries still on their way after {timeout:g} s")
            time.sleep(0.02)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._client.request(method, path, json=body)
        if answer.is_error:
            raise ValueError(f"{method} /_localcloud{path}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found

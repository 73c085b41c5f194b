"""A fake server's control calls from Python: what every fake server has."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

TIMEOUT_SECONDS = 150  # an advanced clock may have years of renewals to live through


class ControlClient:
    """Talks to `/_localcloud` of a running fake server. Close it, or use it in a `with`."""

    def __init__(self, url: str) -> None:
        """`url`: where the fake server listens, as http://127.0.0.1:12111."""
        self._client = httpx.Client(base_url=f"{url}/_localcloud", timeout=TIMEOUT_SECONDS, trust_env=False)

    def health(self) -> dict[str, Any]:
        return self.call("GET", "/health")

    def clear_faults(self) -> None:
        self.call("DELETE", "/faults")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One control call. Raises ValueError, with the fake server's own words, when it is refused."""
        answer = self._client.request(method, path, json=body)
        if answer.is_error:
            raise ValueError(f"{method} /_localcloud{path}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""The control plane as a tier: what to ask when the cache does not know, or is away."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

import urllib3

from dataplane.tenant_config import MAX_ENTRY_BYTES, TenantConfig, TenantConfigError, verify
from dataplane.tiers import (
    EntryRefused,
    Pause,
    TierDown,
)

log = logging.getLogger(__name__)


class ControlPlaneTier:
    """The control plane's resolve endpoint: `GET <base>/v1/resolve?host=…` with a bearer token.

    200 brings `{"entry": "v2-…"}`, signed as in the cache and verified here all the same. "There is
    none" is `{"error": {"code": "unknown_host"}}` with 404, and a 400 that blames the host: a 404 of a
    proxy, or of a wrong base URL, says nothing about a tenant. At most `concurrent` requests are under
    way at once.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        keys: Mapping[str, bytes],
        *,
        timeout: float = 2.0,
        concurrent: int = 8,
        pause: float = 1.0,
    ) -> None:
        self._url = base_url.rstrip("/") + "/v1/resolve"
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._keys = dict(keys)
        self._timeout = timeout
        self._concurrent = concurrent
        self._slots = threading.BoundedSemaphore(concurrent)
        self._pause = Pause(pause)
        self._http: urllib3.PoolManager | None = None
        self._pid = 0

    def read(self, host: str) -> TenantConfig | None:
        self._pause.check()
        if not self._slots.acquire(timeout=self._timeout):
            raise TierDown("resolve endpoint: too many hosts are being asked for at once")
        try:
            status, kind, body = self._get(host)
        finally:
            self._slots.release()
        document = _document(kind, body)
        if _says_none(status, document):
            self._pause.worked()
            return None
        if status != 200 or document is None:
            self._pause.failed()
            log.error("resolve endpoint: answered %d (%s)", status, kind or "no content type")
            raise TierDown(f"resolve endpoint: answered {status}")
        self._pause.worked()
        try:
            return TenantConfig.from_payload(verify(_entry(document), host=host, keys=self._keys))
        except TenantConfigError as error:
            log.error("resolve endpoint: the entry of %s is refused: %s", host, error)  # noqa: TRY400
            raise EntryRefused(f"resolve endpoint: {error}") from error

    def alive(self) -> None:
        self._pause.worked()

    def close(self) -> None:
        if self._http is not None:
            self._http.clear()

    def _pool(self) -> urllib3.PoolManager:
        """One a process: its connections can't be shared over a fork."""
        if self._http is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._http = urllib3.PoolManager(
                maxsize=self._concurrent,
                timeout=urllib3.Timeout(connect=self._timeout, read=self._timeout),
                retries=False,
            )
        return self._http

    def _get(self, host: str) -> tuple[int, str, bytes]:
        try:
            try:
                return self._request(host)
            except urllib3.exceptions.ProtocolError:
                return self._request(host)  # a kept connection that the server had just closed
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._pause.failed()
            raise TierDown(f"resolve endpoint: {type(error).__name__}") from error

    def _request(self, host: str) -> tuple[int, str, bytes]:
        response = self._pool().request(
            "GET", self._url, fields={"host": host}, headers=self._headers, preload_content=False
        )
        try:
            body = response.read(2 * MAX_ENTRY_BYTES)
            if response.read(1):
                response.close()
                raise TierDown("resolve endpoint: the answer is too long")
        finally:
            response.release_conn()
        return response.status, response.headers.get("Content-Type", ""), body


def _document(kind: str, body: bytes) -> dict[str, Any] | None:
    """The JSON object in an answer, if it says that it is JSON."""
    if not kind.partition(";")[0].strip().lower().endswith("json"):
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _entry(document: dict[str, Any]) -> str:
    entry = document.get("entry")
    if not isinstance(entry, str):
        raise TenantConfigError("entry: expected a string")
    return entry


def _says_none(status: int, document: dict[str, Any] | None) -> bool:
    error = None if document is None else document.get("error")
    if not isinstance(error, dict):
        return False
    if status == 404:
        return error.get("code") == "unknown_host"
    return status == 400 and error.get("code") == "invalid" and error.get("field") == "host"

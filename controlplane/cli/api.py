"""The API as the commands see it: JSON, or a Failure with one clear line.

The token comes from the environment alone: an argument would stand in the process list.
"""

from __future__ import annotations

import re
from typing import Any

import httpx

from controlplane.cli.failure import Failure, Missing, Misuse, NotAllowed, Unreachable, clear_errors
from controlplane.settings import ClientSettings

Json = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,254}")

URL, TOKEN = "CONTROLPLANE_API_URL", "CONTROLPLANE_API_TOKEN"
PAGE = 200
TIMEOUT = httpx.Timeout(15.0, connect=5.0)


class Api:
    """`base`: the address without /v1. Every call ends within TIMEOUT for each of its parts."""

    def __init__(self, base: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.base = base
        self._http = httpx.Client(
            base_url=base,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=TIMEOUT,
            transport=transport,
        )

    @classmethod
    def from_environment(cls) -> Api:
        """Raises Misuse."""
        with clear_errors():
            settings = ClientSettings.from_environment()
        return cls(settings.api_url, settings.api_token)

    def get(self, path: str, **query: str | int | None) -> Json:
        params = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self._call("POST", path, json={} if body is None else body)

    def listing(self, path: str, *, limit: int | None, **query: str | int | None) -> Json:
        """Up to `limit` items (None: all), pages followed; shaped like one page of the API."""
        items: list[Json] = []
        cursor: str | None = None
        while True:
            size = PAGE if limit is None else min(PAGE, limit - len(items))
            page = self.get(path, limit=size, cursor=cursor, **query)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or (limit is not None and len(items) >= limit):
                return {"items": items, "next_cursor": cursor}

    def _call(self, method: str, path: str, **options: Any) -> Json:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise Unreachable(f"the API at {self.base} did not answer in time") from error
        except httpx.TransportError as error:
            raise Unreachable(f"the API at {self.base} can't be reached: {error}") from error
        return self._read(answer)

    def _read(self, answer: httpx.Response) -> Json:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.is_success and isinstance(body, dict):
            return body
        problem = body.get("error") if isinstance(body, dict) else None
        if not isinstance(problem, dict) or problem.get("code") == "no_such_url":
            if answer.status_code in {502, 503, 504}:
                raise Unreachable(f"the API at {self.base} is not there now: HTTP {answer.status_code}")
            status = answer.status_code
            raise Failure(f"{self.base} does not answer like the API (HTTP {status}): is {URL} right?")
        kind = {400: Misuse, 401: NotAllowed, 403: NotAllowed, 404: Missing, 503: Unreachable}
        message = str(problem.get("message"))
        if answer.status_code == 401:
            message += f"; is {TOKEN} right?"
        if answer.status_code >= 500:
            message += f" (request {answer.headers.get('X-Request-ID', 'unknown')})"
        raise kind.get(answer.status_code, Failure)(message)


def in_path(what: str, name: str) -> str:
    """A name that was typed, as part of a path. Raises Missing where nothing can be called that."""
    if not _NAME.fullmatch(name):
        raise Missing(f"{what} {name[:80]!a} does not exist")
    return name

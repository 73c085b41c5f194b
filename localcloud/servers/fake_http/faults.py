"""Fault switches of a fake server's API: the next calls fail, stall or lose their answer, on demand.

    {"api": [{"status": 429, "count": 3, "retry_after": 2, "method": "GET", "path": "/v1/subscriptions"},
             {"delay_seconds": 30, "when": "after", "count": 1, "method": "POST"}]}

`when` "before" answers instead of doing the call; "after" does the call first, so that the caller
never learns of its success. That second case is the one that makes duplicates.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

MAX_DELAY_SECONDS = 120.0


class BadControl(ValueError):
    """A control call asks for something that is not there; the message names the field."""


@dataclass(slots=True)
class ApiFault:
    """`status` None only delays. `count` calls are left; `method` and `path` (a prefix) narrow it."""

    status: int | None
    count: int
    when: str
    delay_seconds: float
    retry_after: float | None
    method: str | None
    path: str

    def fits(self, *, method: str, path: str, when: str) -> bool:
        return (
            self.count > 0
            and self.when == when
            and self.method in (None, method)
            and path.startswith(self.path)
        )


class ApiFaults:
    """The switches that are set, in the order they were set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[ApiFault] = []

    def take(self, *, method: str, path: str, when: str) -> ApiFault | None:
        """The first fault that fits this call, used up by one."""
        with self._lock:
            for fault in self._faults:
                if fault.fits(method=method, path=path, when=when):
                    fault.count -= 1
                    return fault
            return None

    def set(self, described: Any) -> None:
        """Replace all. Raises BadControl naming the field."""
        faults = [_fault(f"api[{index}]", item) for index, item in enumerate(_list("api", described))]
        with self._lock:
            self._faults = faults

    def describe(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {
                    "status": fault.status,
                    "count": fault.count,
                    "when": fault.when,
                    "delay_seconds": fault.delay_seconds,
                    "retry_after": fault.retry_after,
                    "method": fault.method,
                    "path": fault.path,
                }
                for fault in self._faults
                if fault.count > 0
            ]


def _fault(where: str, item: Any) -> ApiFault:
    if not isinstance(item, dict):
        raise BadControl(f"{where}: expected an object")
    known = {"status", "count", "when", "delay_seconds", "retry_after", "method", "path"}
    if unknown := sorted(set(item) - known):
        raise BadControl(f"{where}.{unknown[0]}: unknown, expected one of {', '.join(sorted(known))}")
    status = item.get("status")
    if status is not None and not (isinstance(status, int) and 400 <= status <= 599):
        raise BadControl(f"{where}.status: expected an HTTP status from 400 to 599, got {status!r}")
    when = item.get("when", "before")
    if when not in ("before", "after"):
        raise BadControl(f'{where}.when: expected "before" or "after", got {when!r}')
    retry_after = item.get("retry_after")
    return ApiFault(
        status=status,
        count=int(number(f"{where}.count", item.get("count", 1), low=1, high=1_000_000)),
        when=when,
        delay_seconds=number(
            f"{where}.delay_seconds", item.get("delay_seconds", 0), low=0, high=MAX_DELAY_SECONDS
        ),
        retry_after=None
        if retry_after is None
        else number(f"{where}.retry_after", retry_after, low=0, high=3600),
        method=None if item.get("method") is None else str(item["method"]).upper(),
        path=str(item.get("path", "")),
    )


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadControl(f"{where}: expected a list")
    return value


def number(where: str, value: Any, *, low: float, high: float) -> float:
    """`value` as a number within the bounds. Raises BadControl naming the field."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadControl(f"{where}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)

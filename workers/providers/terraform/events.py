"""What a run says of itself: Terraform's `-json` lines, as events without values.

The format is Terraform's "Machine-readable UI" 1.2; types that it adds later are passed over, as its
documentation asks. Messages lose the ids that Terraform appends, so that an event holds names only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from controlplane.workers.providers.ports import ResourceEvent
from controlplane.workers.providers.terraform.diagnostics import Diagnostic

KINDS = {
    "planned_change": "planned",
    "apply_start": "started",
    "apply_progress": "progress",
    "apply_complete": "done",
    "apply_errored": "failed",
}
_ID = re.compile(r" \[id=.*?\]$")
_MESSAGE_LIMIT = 200


class Stream:
    """Reads one command's lines; keeps its errors and outputs, passes resource events on."""

    def __init__(self, on_event: Callable[[ResourceEvent], None], *, kinds: frozenset[str]) -> None:
        """`kinds`: the kinds of ResourceEvent to pass on; the others are read silently."""
        self.errors: list[Diagnostic] = []
        self.outputs: dict[str, Any] = {}
        self._on_event = on_event
        self._kinds = kinds

    def line(self, text: str) -> None:
        entry = _entry(text)
        kind = entry.get("type")
        if kind == "diagnostic":
            self._diagnostic(entry.get("diagnostic", {}))
        elif kind == "outputs":
            self._outputs(entry.get("outputs", {}))
        elif kind in KINDS and KINDS[kind] in self._kinds:
            event = _event(KINDS[kind], entry)
            if event is not None:
                self._on_event(event)

    def _diagnostic(self, found: dict[str, Any]) -> None:
        if found.get("severity") == "error":
            self.errors.append(
                Diagnostic(
                    summary=str(found.get("summary", "")),
                    detail=str(found.get("detail", "")),
                    address=str(found.get("address", "")),
                )
            )

    def _outputs(self, found: dict[str, Any]) -> None:
        self.outputs = {
            name: output["value"]
            for name, output in found.items()
            if "value" in output and not output.get("sensitive")
        }


def _entry(text: str) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _event(kind: str, entry: dict[str, Any]) -> ResourceEvent | None:
    about = entry.get("change") if kind == "planned" else entry.get("hook")
    if not isinstance(about, dict) or about.get("action") in {"noop", "read"}:
        return None
    seconds = about.get("elapsed_seconds")
    action = "import" if "importing" in about else str(about.get("action", ""))
    return ResourceEvent(
        kind=kind,
        address=str(about.get("resource", {}).get("addr", "")),
        action=action,
        seconds=None if seconds is None else float(seconds),
        message=_ID.sub("", str(entry.get("@message", "")))[:_MESSAGE_LIMIT],
    )

"""Terraform's errors as ours: who acts next.

Terraform reports AWS's answers as text, so the decision is made on AWS's error codes within it, by the table
that our own calls use (`controlplane.workers.providers.aws`), and on what Terraform itself says. A message
of ours is the summary alone, cut short: a detail may quote configuration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.workers.providers import aws
from controlplane.workers.providers.aws import Meaning

_LIMIT = 300  # characters of a summary that a message keeps
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_REQUEST = re.compile(r",?\s*(RequestID|Request ID|request id|HostID|Host ID):\s*[^,\s]*", re.IGNORECASE)

_RUN_AGAIN = 10.0  # seconds until a run is worth its costs again
# Behind what AWS's answers mean: what Terraform and its provider say of their own.
_MEANINGS = (
    *aws.MEANINGS,
    Meaning(re.compile(r"Error acquiring the state lock"), "foreign-state-lock", 30),
    # A moment later the same run may succeed: a name is about to be adopted or restored.
    Meaning(
        re.compile(
            r"AlreadyExists|already exists|ResourceExistsException|scheduled for deletion|Saved plan is stale"
        ),
        "aws-settling",
        _RUN_AGAIN,
    ),
    Meaning(
        re.compile(
            r"StatusCode: 5\d\d|connection refused|connection reset|i/o timeout|no such host|TLS handshake"
            r"|unexpected EOF|\bEOF\b|deadline exceeded|request send failed|timeout while waiting|broken pipe"
            r"|Failed to save state|error uploading state"
            r"|failed to decode response body"  # not AWS's words: something in between answered
        ),
        "aws-unavailable",
        _RUN_AGAIN,
    ),
    # The provider died under Terraform (out of memory, killed) or was asked to stop.
    Meaning(
        re.compile(
            r"Plugin did not respond|Request cancelled|rpc error: code = (?:Unavailable|Canceled)"
            r"|Unrecognized remote plugin message"
        ),
        "retrying",
        _RUN_AGAIN,
    ),
    Meaning(re.compile(""), "terraform-configuration", None),  # everything else
)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error of Terraform's; `address` "" where it is about the run."""

    summary: str
    detail: str = ""
    address: str = ""

    @property
    def text(self) -> str:
        return f"{self.summary}\n{self.detail}"


def failure(what: str, code: int, errors: Sequence[Diagnostic]) -> ControlPlaneError:
    """The error for a command that ended with `code`; `what` as "apply".

    Of several, the one that no retry repairs decides: a quota first, configuration last, as in the table.
    Else the one that takes longest does."""
    if not errors:
        ended = f"by signal {-code}" if code < 0 else f"with status {code}"
        return Retryable(f"terraform {what} ended {ended} and gave no reason")
    met = [next((n, m, e) for n, m in enumerate(_MEANINGS) if m.pattern.search(e.text)) for e in errors]
    persons = [found for found in met if found[1].after is None]
    if persons:
        _, known, error = min(persons, key=lambda found: found[0])
        return NeedsHuman(_message(what, error), runbook=known.runbook)
    _, known, error = max(met, key=lambda found: found[1].after or 0.0)
    after = max(known.after or 0.0, _RUN_AGAIN)
    return Retryable(_message(what, error), after=after, runbook=known.runbook)


def of_stderr(text: str) -> list[Diagnostic]:
    """The errors of a command without `-json`: its "Error: …" lines, read off the drawn boxes."""
    lines = [line.strip("╷│╵ ").strip() for line in _COLOUR.sub("", text).splitlines()]
    summaries = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    detail = " ".join(line for line in lines if line and not line.startswith("Error: "))
    return [Diagnostic(summary=summary, detail=detail) for summary in summaries]


def _message(what: str, error: Diagnostic) -> str:
    where = f" {error.address}" if error.address else ""
    summary = _REQUEST.sub("", " ".join(error.summary.split()))
    return f"terraform {what}{where}: {summary}"[:_LIMIT]

"""Terraform's errors as ours: who acts next.

Terraform reports AWS's answers as text, so the decision is made on AWS's error codes within it. A
message of ours is the summary alone, cut short: a detail may quote configuration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable

_LIMIT = 300  # characters of a summary that a message keeps
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_REQUEST = re.compile(r",?\s*(RequestID|Request ID|request id|HostID|Host ID):\s*[^,\s]*", re.IGNORECASE)

THROTTLED = re.compile(
    r"Throttl|RequestLimitExceeded|TooManyRequests|SlowDown|PriorRequestNotComplete|Rate exceeded"
    r"|StatusCode: 429"
)
QUOTA = re.compile(r"QuotaExceeded|LimitExceeded")
LOCKED = re.compile(r"Error acquiring the state lock")
# A moment later the same call may succeed: AWS is settling, a name is about to be adopted or restored.
SETTLING = re.compile(
    r"MalformedPolicyDocument|InvalidPrincipal|NoSuchEntity|ConcurrentModification|OperationAborted"
    r"|Invalid\w+State|KMSKeyNotAccessible|ExpiredToken|AlreadyExists|already exists|ResourceExistsException"
    r"|scheduled for deletion|Saved plan is stale"
)
NETWORK = re.compile(
    r"StatusCode: 5\d\d|InternalFailure|InternalError|ServiceUnavailable|RequestTimeout|connection refused"
    r"|connection reset|i/o timeout|no such host|TLS handshake|unexpected EOF|\bEOF\b|deadline exceeded"
    r"|request send failed|timeout while waiting|Failed to save state|error uploading state|broken pipe"
    r"|failed to decode response body"  # not AWS's words: something in between answered
)
# The provider died under Terraform (out of memory, killed) or was told to stop.
PLUGIN = re.compile(
    r"Plugin did not respond|Request cancelled|rpc error: code = (?:Unavailable|Canceled)"
    r"|Unrecognized remote plugin message"
)
CREDENTIALS = re.compile(
    r"AccessDenied|UnauthorizedOperation|UnrecognizedClient|InvalidClientTokenId|SignatureDoesNotMatch"
    r"|AuthFailure|No valid credential sources|failed to refresh cached credentials"
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

    Of several, the one that no retry mends decides: a quota, else credentials, else configuration.
    """
    if not errors:
        ended = f"by signal {-code}" if code < 0 else f"with status {code}"
        return Retryable(f"terraform {what} ended {ended} and gave no reason")
    for pattern, runbook in ((QUOTA, "aws-quota"), (CREDENTIALS, "aws-credentials")):
        for error in errors:
            if pattern.search(error.text) and not THROTTLED.search(error.text):
                return NeedsHuman(_message(what, error), runbook=runbook)
    for error in errors:
        if not any(p.search(error.text) for p in (THROTTLED, LOCKED, SETTLING, NETWORK, PLUGIN)):
            return NeedsHuman(_message(what, error), runbook="terraform-configuration")
    slow = [e for e in errors if THROTTLED.search(e.text) or LOCKED.search(e.text)]
    return Retryable(_message(what, (slow or list(errors))[0]), after=30 if slow else 10)


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

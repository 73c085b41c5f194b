"""Errors that say who acts next.

An engine that only knows "it failed" retries what a person must decide and pages a person for what
the next minute would have repaired. So every error that crosses a layer is one of three, and carries
what its reader needs: the machine a delay, the person a runbook, the caller the reason.

    ControlPlaneError
    ├── Retryable     the engine acts next: the same pass is tried again after `after` seconds; a person
    │   │             is notified where that has gone on for long
    │   └── Pending   nothing is wrong, something outside needs time; does not count as an attempt
    ├── NeedsHuman    a person acts next: `runbook` names the page in docs/runbooks/
    ├── Refused       the caller acts next: the request can't be granted as it stands
    │   ├── Invalid   a field has a value that is not allowed; `field` names it
    │   ├── NotFound  what was asked for does not exist
    │   └── Conflict  it collides with what exists
    └── LeaseLost     nobody acts: another holder has taken over, this one stops at once
"""

from __future__ import annotations

from controlplane.domain.safe_repr import safe_repr


class ControlPlaneError(Exception):
    """The control plane could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0].rstrip(".")
        )


class Retryable(ControlPlaneError):
    """An outside system failed in a way that time may repair."""

    def __init__(
        self, message: str | None = None, *, after: float | None = None, runbook: str | None = None
    ) -> None:
        """`after`: seconds to wait at least; None leaves it to the operation's backoff. `runbook`: the page
        in docs/runbooks/ for whoever is notified once it has lasted; None where there is none of its own."""
        super().__init__(message)
        self.after = after
        self.runbook = runbook


class Pending(Retryable):
    """Nothing is wrong; an outside system needs more time."""


class NeedsHuman(ControlPlaneError):
    """The engine must not decide this alone."""

    def __init__(self, message: str | None = None, *, runbook: str) -> None:
        """`runbook`: the name of a page in docs/runbooks/, without its ending."""
        super().__init__(message)
        self.runbook = runbook


class Refused(ControlPlaneError):
    """The request can't be granted as it stands."""


class Invalid(Refused):
    """A field has a value that is not allowed."""

    def __init__(self, field: str, expected: str, *, got: object = None) -> None:
        """`got`: the value as it came, however hostile; None is not named."""
        super().__init__(f"{field}: expected {expected}" + ("" if got is None else f", got {safe_repr(got)}"))
        self.field = field
        self.expected = expected


class NotFound(Refused):
    """What was asked for does not exist."""


class Conflict(Refused):
    """The request collides with what exists."""


class LeaseLost(ControlPlaneError):
    """Another holder has taken over this resource."""

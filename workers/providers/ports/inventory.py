"""What there is, listed: for the drift report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Tagged:
    """Something in the account with our tag `managed_by`."""

    arn: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StateObject:
    """A workspace of the state bucket: does it have a state, does it have a lock?"""

    stack: str
    workspace: str
    present: bool
    locked: bool


class Inventory(Protocol):
    """Everything of ours in the account, a page at a time: no call for each tenant. Raises Retryable and
    NeedsHuman."""

    def tagged(self) -> Iterator[Tagged]:
        """All but IAM roles, which AWS's tagging service does not know. May name what was deleted in the
        last hours."""
        ...

    def states(self) -> Iterator[StateObject]: ...

    def secrets(self) -> Iterator[tuple[str, bool]]:
        """(name, waits for its deletion) of every secret under `placements/`."""
        ...

    def roles(self) -> Iterator[str]:
        """Names of all roles that are called like a cluster's."""
        ...

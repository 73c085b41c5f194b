"""Terraform: runs of a stack, one workspace at a time, by the release of the stacks that the caller names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class PriorRun:
    """A Terraform run of ours on this workspace that was recorded before it started and never
    recorded as ended. Its lock may be broken, nobody else's may."""

    who: str  # `user@host`, as Terraform writes it into its lock
    started_at: datetime
    lock_id: str | None  # known once the run had taken its lock


@dataclass(frozen=True, slots=True)
class StackRun:
    """One stack in one workspace, as it should be.

    `release`: the digest of the archive whose files are run, whatever this installation carries. `variables`
    never hold a secret. `approved` are the resource addresses that this run may delete or replace; anything
    else that the Terraform plan would delete or replace stops it (I6).
    `prior_runs` come from the registry, the caller holds the lease, so none of them is alive.
    """

    stack: str  # "cluster" | "placements": a folder of terraform/stacks
    workspace: str
    release: str  # SHA-256 of the archive, 64 hexadecimal digits
    variables: Mapping[str, Any]
    prior_runs: Sequence[PriorRun] = ()
    approved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ResourceEvent:
    """One line of a run's progress, from `terraform apply -json`, with no value in it."""

    # "lock_taken" | "recovered" | "adopted" | "planned" | "started" | "progress" | "done" | "failed"
    kind: str
    address: str  # the resource's address, the lock's id for "lock_taken", "" for the run as a whole
    action: str  # "create" | "update" | "delete" | "read" | "import" | "untaint" | "unlock" | …
    seconds: float | None
    message: str


@dataclass(frozen=True, slots=True)
class PlannedChange:
    address: str
    action: str  # "create" | "update" | "delete" | "replace" | "import"
    destructive: bool


class Found(StrEnum):
    """What was at an archive's place before it was published. DAMAGED: something else."""

    ABSENT = "absent"
    PRESENT = "present"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Publication:
    """`digest`: of the archive; `variables`: {stack: those that it declares}; `place`: where it is, as
    "s3://bucket/key"; `size`: in bytes."""

    digest: str
    variables: Mapping[str, Sequence[str]]
    place: str
    size: int
    found: Found


class Terraform(Protocol):
    """Each run may raise NeedsHuman("stack-release"): the archive of its release is missing or damaged."""

    def publish(self, *, dry_run: bool = False) -> Publication:
        """Put the stacks, modules and lock files that this installation carries where every worker finds
        them. An archive that is there is never written again; what is there and is not the archive is
        replaced, as a digest leaves no doubt which is right. `dry_run`: only look.

        Raises Retryable, NeedsHuman("aws-credentials").
        """
        ...

    def apply(
        self, run: StackRun, *, on_event: Callable[[ResourceEvent], None], stopped: Callable[[], bool]
    ) -> dict[str, Any]:
        """Bring the stack to `run.variables`; return its outputs.

        Recovers first from whatever a killed run left behind (stale lock of ours, lost state,
        tainted or orphaned resources), then plans, guards, applies. What left the variables is
        deleted where `run.approved` names it, whether or not the state still knows it. `stopped` is
        asked at least every second; once true the child gets SIGINT, after 10 s SIGKILL, and
        LeaseLost is raised.

        Raises Retryable (throttling, network, a lock that may still be alive),
        NeedsHuman("destructive-terraform-plan" | "foreign-state-lock" | "aws-quota"
        | "terraform-configuration").
        """
        ...

    def plan(self, run: StackRun) -> list[PlannedChange]:
        """What `apply` would change; changes nothing, takes no lock for longer than the plan."""
        ...

    def destroy(
        self, run: StackRun, *, on_event: Callable[[ResourceEvent], None], stopped: Callable[[], bool]
    ) -> None:
        """Delete everything in the workspace that `run.approved` names, then the workspace itself.
        An empty workspace is success."""
        ...

    def version(self) -> str: ...

"""One step of one pass, as an act gets it: what to do, under which lease, and where it is written down."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from controlplane.domain.catalogue import Plan
from controlplane.domain.errors import NeedsHuman, Pending
from controlplane.domain.job import Job
from controlplane.domain.placement import Placement
from controlplane.domain.planner import ClusterGoal, TenantGoal
from controlplane.domain.steps import Step
from controlplane.store import step
from controlplane.store.cluster import ClusterRow
from controlplane.store.record import OnCluster
from controlplane.store.registry import Connection
from controlplane.store.transfer import TransferRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.record import TenantRecord, endpoint_of
from controlplane.workers.providers.ports import ClusterEndpoint, Home


@dataclass(frozen=True, slots=True)
class Work:
    """One step of one pass. `seq`: its number in the operation's log, once it is begun."""

    ctx: Context
    hold: Hold
    step: Step
    seq: int = field(default=0, kw_only=True)

    @property
    def job(self) -> Job:
        return self.hold.job

    def recording(self) -> AbstractContextManager[Connection]:
        """A transaction that is refused once another holder has claimed."""
        return self.hold.recording()

    def note(
        self, conn: Connection, *, kind: str, action: str, message: str, seconds: float | None = None
    ) -> None:
        """A line in the step's log, within a `recording`."""
        step.note(
            conn,
            self.job,
            self.seq,
            kind=kind,
            address="",
            action=action,
            seconds=seconds,
            message=message,
        )


@dataclass(frozen=True, slots=True)
class ClusterWork(Work):
    row: ClusterRow
    goal: ClusterGoal
    on: OnCluster


@dataclass(frozen=True, slots=True)
class TenantWork(Work):
    record: TenantRecord
    goal: TenantGoal

    @property
    def plan(self) -> Plan:
        if self.record.plan is None:
            raise NeedsHuman(f"{self.record.row.id} has no plan", runbook="unknown-plan")
        return self.record.plan

    @property
    def placement(self) -> Placement:
        if self.record.placement is None:
            raise NeedsHuman(f"{self.record.row.id} has no placement", runbook="internal-error")
        return self.record.placement

    @property
    def cluster(self) -> ClusterRow:
        """The placement's cluster."""
        if self.record.cluster is None:
            raise NeedsHuman(f"{self.record.row.id} has no placement", runbook="internal-error")
        return self.record.cluster

    @property
    def transfer(self) -> TransferRow:
        """The one that is not over."""
        if self.record.transfer is None:
            raise NeedsHuman(f"{self.record.row.id} has no transfer", runbook="internal-error")
        return self.record.transfer

    @property
    def ends(self) -> tuple[Home, Home]:
        """(source, target) of the transfer."""
        ends = self.record.ends()
        if ends is None:
            raise Pending(
                "a cluster of the transfer has no endpoint yet", after=self.ctx.platform.cluster_poll
            )
        return ends

    @property
    def at(self) -> ClusterEndpoint:
        at = None if self.record.cluster is None else endpoint_of(self.record.cluster)
        if at is None:
            raise Pending("the cluster has no endpoint yet", after=self.ctx.platform.cluster_poll)
        return at

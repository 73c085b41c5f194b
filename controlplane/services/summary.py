"""The state of everything in a few numbers: the first page that somebody on call looks at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from controlplane.domain.tenant import Lifecycle, Phase, TenantSpec, phase_of
from controlplane.store import contract, hold, report, summary
from controlplane.store.hold import HoldRow
from controlplane.store.registry import Connection
from controlplane.store.report import About, Report
from controlplane.store.summary import ClusterCounts, InboxCounts, TenantGroup


@dataclass(frozen=True, slots=True)
class Summary:
    """`phases`: tenants in each. `attention`: tenants and clusters that wait for a person."""

    phases: dict[str, int]
    attention: tuple[int, int]
    clusters: ClusterCounts
    operations: dict[str, int]
    inbox: InboxCounts
    contracts: dict[str, int]
    comparison: Report | None
    freezes: list[HoldRow]


def show(conn: Connection) -> Summary:
    """One consistent look."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        phases: Counter[str] = Counter({phase.value: 0 for phase in Phase})
        for group in summary.tenant_groups(conn):
            phases[_phase(group).value] += group.count
        return Summary(
            phases=dict(phases),
            attention=summary.needing_attention(conn),
            clusters=summary.clusters(conn),
            operations=summary.open_operations(conn),
            inbox=summary.inbox(conn),
            contracts=contract.counts(conn),
            comparison=report.read(conn, About.COMPARISON),
            freezes=hold.freezes(conn),
        )


def _phase(group: TenantGroup) -> Phase:
    spec = TenantSpec(lifecycle=Lifecycle(group.lifecycle), plan="", subscription_status="")
    return phase_of(spec, reconciled=group.reconciled, ever_ready=group.ever_ready, started=group.started)

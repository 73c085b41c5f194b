"""The live table of the demo: a row for each tenant and its cluster, and a line for each finished step."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from controlplane.domain.errors import NotFound
from controlplane.services import operations, tenants
from controlplane.store import operation
from controlplane.store.registry import Connection, Registry

Row = tuple[str, str, float, float | None]
"""Name, tenant id, paid at, usable at (monotonic seconds)."""


def progress_table(registry: Registry, rows: Sequence[Row], printed: set[str], console: Console) -> Table:
    """`printed` keeps the finished steps that have been printed above the table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "phase", "at work on", "latest", "since paid"):
        table.add_column(column)
    with registry.connection() as conn:
        for name, tenant_id, paid, usable in rows:
            phase, lines = _tenant(conn, name, tenant_id, printed, console)
            elapsed = f"{(usable or time.monotonic()) - paid:5.1f} s"
            at_work, latest = lines[0] if lines else ("", "")
            table.add_row(name, phase, at_work, latest, elapsed)
            for at_work, latest in lines[1:]:
                table.add_row("", "", at_work, latest, "")
    return table


def _tenant(
    conn: Connection, name: str, tenant_id: str, printed: set[str], console: Console
) -> tuple[str, list[tuple[str, str]]]:
    try:
        detail = tenants.show(conn, tenant_id)
    except NotFound:
        return "paid", [("waiting for the webhook", "")]
    lines = []
    resources = [(tenant_id, name)]
    if detail.placement is not None:
        resources.append((detail.placement.cluster_id, detail.placement.cluster_id))
    for resource_id, label in resources:
        recent = operation.page(conn, before=None, limit=1, resource_id=resource_id)
        if recent:
            lines += _operation(conn, recent[0].id, label, printed, console)
    return str(detail.tenant.phase), lines


def _operation(
    conn: Connection, operation_id: int, label: str, printed: set[str], console: Console
) -> list[tuple[str, str]]:
    found = operations.show(conn, operation_id)
    for step in found.steps:
        key = f"{operation_id}/{step.seq}"
        if step.finished_at is None or step.state == "waiting" or key in printed:
            continue
        printed.add(key)
        seconds = (step.finished_at - step.started_at).total_seconds()
        about = f" {step.target}" if step.target else ""
        mark = "✓" if step.state == "done" else "✗"
        console.print(
            f"  {mark} {label:<18} {step.name}{about} ({seconds:.2f} s) {step.error or ''}", markup=False
        )
    last = found.steps[-1] if found.steps else None
    if last is None or found.operation.state not in ("running", "waiting"):
        return []
    events = [event for event in found.events if event.seq == last.seq]
    latest = f"{events[-1].address} {events[-1].kind}" if events else ""
    return [(last.name, latest or (last.error or ""))]

"""Operations, for those who watch them."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.store import operation, step
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection
from controlplane.store.step import StepEventRow, StepRow


@dataclass(frozen=True, slots=True)
class OperationDetail:
    """`events`: the progress inside its steps, those with an id above the one asked for."""

    operation: OperationRow
    steps: list[StepRow]
    events: list[StepEventRow]


def show(conn: Connection, operation_id: int, *, events_after: int = 0) -> OperationDetail:
    """At one moment, so that every event is one of its steps'. Raises NotFound."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = operation.get(conn, operation_id)
        return OperationDetail(
            operation=found,
            steps=step.of_operation(conn, found.id),
            events=step.events_of(conn, found.id, after=events_after),
        )

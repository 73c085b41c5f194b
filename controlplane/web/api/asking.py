"""What support asks of a tenant: an operation, or a preview of one. A worker does it; the answer says where
to watch.

The request is resolved, recorded and shown over one connection; the wake-up comes after, so no worker looks
for what is not committed yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response

from controlplane import task_names
from controlplane.services import tenants
from controlplane.store import operation
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.edge import Edge

Ask = Callable[[Connection, str], int]
"""(connection, tenant id) → the id of what was recorded."""


def for_operation(edge: Edge, name: str, ask: Ask) -> Response:
    """`name`: the tenant's id or slug."""
    with edge.registry.connection() as conn:
        tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
        row = operation.get(conn, ask(conn, tenant_id))
    return begun(edge, tenant_id, row)


def for_preview(edge: Edge, name: str, ask: Ask) -> Response:
    with edge.registry.connection() as conn:
        tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
        preview_id = ask(conn, tenant_id)
    edge.notify(task_names.PREVIEW, [str(preview_id)])
    return render.accepted(
        {"preview": {"id": preview_id, "tenant": tenant_id, "state": "waiting"}}, f"/v1/previews/{preview_id}"
    )


def begun(edge: Edge, tenant_id: str, row: OperationRow, **beside: Any) -> Response:
    """Notify workers of an operation that is committed. `beside`: what the answer has besides it."""
    edge.notify(task_names.CONVERGE, ["tenant", tenant_id])
    return render.accepted({**beside, "operation": render.operation(row)}, f"/v1/operations/{row.id}")

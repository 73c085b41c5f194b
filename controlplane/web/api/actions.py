"""POST /v1/tenants/<id or slug>/<action> and /v1/clusters/<id>/<action>, made from `controlplane.actions`.

The request is checked, recorded and shown over one connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.actions import ACTIONS
from controlplane.actions.action import Action, Begun, Preview, Subject, dry_run, run
from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import subdomain
from controlplane.domain.job import PreviewState
from controlplane.domain.placement import TENANT_ID
from controlplane.services import purges, tenants
from controlplane.services.purges import PurgeDetail
from controlplane.store import operation
from controlplane.store.registry import Connection
from controlplane.web import body, query
from controlplane.web.api import exports, render
from controlplane.web.api.purges import rendered as rendered_purge
from controlplane.web.auth import READERS, Role, caller
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("actions", __name__, url_prefix="/v1")

    @views.get("/actions")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only()
        return jsonify({"items": [_declared(action) for action in ACTIONS.values()]})

    for action in ACTIONS.values():
        view = edge.guard.allow(frozenset({Role(action.permission)}))(partial(_take, edge, action))
        rule = action.path("<name>").removeprefix("/v1")
        views.add_url_rule(rule, f"{action.subject}-{action.name}", view, methods=["POST"])
    return views


def _declared(action: Action[Any]) -> dict[str, Any]:
    return {
        "name": action.name,
        "subject": action.subject.value,
        "summary": action.summary,
        "permission": action.permission,
        "dry_run": action.preview is not None,
        "full_id": action.full_id,
        "approved_by": action.second_person(action.params.model_construct()),
        "parameters": action.params.model_json_schema(),
    }


def _take(edge: Edge, action: Action[Any], name: str = "") -> Response:
    query.only()
    own = {"reason", "dry_run"} if action.preview is not None else {"reason"}
    fields = body.read_json(frozenset({*action.params.model_fields, *own}))
    only_look = body.flag(fields, "dry_run")
    reason = body.why(fields.pop("reason", None), needed=not only_look)
    fields.pop("dry_run", None)
    about: dict[str, Any] = {"actor": caller().actor, "subject": action.subject}
    with edge.registry.connection() as conn:
        subject_id = _named(conn, action, name)
        if only_look:
            found = dry_run(conn, action.name, subject_id, **about, **fields)
            return _previewed(edge, action.subject, subject_id, found)
        begun = run(conn, action.name, subject_id, reason=reason, **about, **fields)
        answer = _recorded(conn, subject_id, begun, edge.zone)
    return _begun(answer)


def _named(conn: Connection, action: Action[Any], name: str) -> str:
    if action.subject is Subject.FLEET:
        return name
    known = query.name(name, action.subject)
    if action.subject is Subject.CLUSTER:
        return known
    if action.full_id and not TENANT_ID.match(known):
        what = f"its id in full (t-…): a slug is not enough to {action.name} by"
        raise Invalid("tenant", what, got=known)
    return tenants.resolve(conn, known).id


def _previewed(edge: Edge, subject: Subject, subject_id: str, found: Preview) -> Response:
    if isinstance(found, PurgeDetail):
        return jsonify({"purge": rendered_purge(found)})
    if not isinstance(found, int):
        return jsonify({"plan": _with_hosts(found, edge.zone)})
    return render.accepted(
        {"preview": {"id": found, subject.value: subject_id, "state": PreviewState.WAITING}},
        f"/v1/previews/{found}",
    )


def _with_hosts(found: Mapping[str, object], zone: str) -> dict[str, Any]:
    """The host of each slug beside it: an action knows no zone."""
    hosts = {
        name.replace("slug", "host"): subdomain(str(found[name]), zone)
        for name in ("slug", "former_slug")
        if found.get(name) is not None
    }
    return {**found, **hosts}


def _recorded(conn: Connection, subject_id: str, begun: Begun, zone: str) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if begun.made is not None:
        answer["tenant"] = begun.made
    if begun.export is not None:
        answer["export"] = exports.rendered(begun.export)
    if begun.purge is not None:
        answer["purge"] = rendered_purge(purges.show(conn, subject_id))
    if begun.freeze is not None:
        answer["freeze"] = render.freeze(begun.freeze)
    if begun.recorded is not None:
        answer["recorded"] = _with_hosts(begun.recorded, zone)
    if begun.operation_id is not None:
        answer["operation"] = render.operation(operation.get(conn, begun.operation_id))
    return answer


def _begun(answer: dict[str, Any]) -> Response:
    if "operation" in answer:
        return render.accepted(answer, f"/v1/operations/{answer['operation']['id']}")
    if "export" in answer:
        return render.accepted(answer, f"/v1/exports/{answer['export']['id']}")
    return jsonify(answer)

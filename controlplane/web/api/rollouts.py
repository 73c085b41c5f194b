"""/v1/rollouts"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.errors import Invalid
from controlplane.domain.rollout import Counts, MemberState, Spec
from controlplane.services import rollout_plot, rollouts
from controlplane.services.rollouts import RolloutDetail
from controlplane.store import rollout
from controlplane.store.registry import Connection
from controlplane.store.rollout import RolloutRow
from controlplane.store.rollout_member import MemberRow
from controlplane.store.rollout_snapshot import SnapshotRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.api.releases import number_of, render_reason
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge

MAX_NAMES = 1000
Act = Callable[[Connection, int, dict[str, Any]], RolloutDetail]
_STATES = tuple(state.value for state in MemberState)


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("rollouts", __name__, url_prefix="/v1/rollouts")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor")
        size, before = query.limit(), query.cursor("rollouts", query.id_position)
        with edge.registry.connection() as conn:
            rows = rollout.page(conn, before=before, limit=size + 1)
        rows, next_cursor = query.page("rollouts", rows, size, lambda row: [row.id])
        return render.listing([_brief(row) for row in rows], next_cursor)

    @views.post("")
    @edge.guard.allow(OPERATORS)
    def start() -> Response:
        query.only()
        fields = body.read_json(frozenset({"release", "spec"}))
        spec = fields.get("spec", {})
        if not isinstance(spec, dict):
            raise Invalid("spec", "a JSON object", got=spec)
        with edge.registry.connection() as conn:
            rollout_id = rollouts.start(conn, number_of(fields), Spec.from_json(spec), actor=caller().actor)
            detail = rollouts.show(conn, rollout_id)
        return render.accepted(_full(detail), f"/v1/rollouts/{rollout_id}")

    @views.get("/<rollout_id>")
    @edge.guard.allow(READERS)
    def show(rollout_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            detail = rollouts.show(conn, query.row_id(rollout_id, "rollout"))
        return jsonify(_full(detail))

    @views.get("/<rollout_id>/members")
    @edge.guard.allow(READERS)
    def members(rollout_id: str) -> Response:
        query.only("limit", "cursor", "state")
        size, after = query.limit(), query.cursor("members", query.text_position)
        state = query.choice("state", _STATES)
        with edge.registry.connection() as conn:
            rows = rollouts.members_page(
                conn, query.row_id(rollout_id, "rollout"), after=after, limit=size + 1, state=state
            )
        rows, next_cursor = query.page("members", rows, size, lambda row: [row.tenant_id])
        return render.listing([_member(row) for row in rows], next_cursor)

    @views.get("/<rollout_id>/plot")
    @edge.guard.allow(READERS)
    def plot(rollout_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            drawing = rollout_plot.draw(conn, query.row_id(rollout_id, "rollout"))
        return jsonify({"svg": drawing})

    def steer(
        path: str, act: Callable[[Connection, int, dict[str, Any]], RolloutDetail], *known: str
    ) -> None:
        @views.post(f"/<rollout_id>/{path}", endpoint=path)
        @edge.guard.allow(OPERATORS)
        def view(rollout_id: str) -> Response:
            query.only()
            fields = body.read_json(frozenset(known))
            number = query.row_id(rollout_id, "rollout")
            with edge.registry.connection() as conn:
                detail = act(conn, number, fields)
            return jsonify(_full(detail))

    steer("pause", _pause, "reason")
    steer("resume", _resume, "reason")
    steer("abort", _abort, "reason")
    steer("retry", _retry, "tenants")
    steer("skip", _skip, "tenants", "reason")
    return views


def _pause(conn: Connection, number: int, fields: dict[str, Any]) -> RolloutDetail:
    return rollouts.pause(conn, number, actor=caller().actor, reason=render_reason(fields))


def _resume(conn: Connection, number: int, fields: dict[str, Any]) -> RolloutDetail:
    return rollouts.resume(conn, number, actor=caller().actor, reason=render_reason(fields))


def _abort(conn: Connection, number: int, fields: dict[str, Any]) -> RolloutDetail:
    return rollouts.abort(conn, number, actor=caller().actor, reason=render_reason(fields))


def _retry(conn: Connection, number: int, fields: dict[str, Any]) -> RolloutDetail:
    names = _names(fields) if "tenants" in fields else None
    return rollouts.retry(conn, number, names, actor=caller().actor)


def _skip(conn: Connection, number: int, fields: dict[str, Any]) -> RolloutDetail:
    reason = render_reason(fields)
    return rollouts.skip(conn, number, _names(fields), actor=caller().actor, reason=reason)


def _names(fields: dict[str, Any]) -> list[str]:
    names = fields.get("tenants")
    if (
        not isinstance(names, list)
        or not 1 <= len(names) <= MAX_NAMES
        or not all(isinstance(name, str) for name in names)
    ):
        raise Invalid("tenants", f"a list of 1 to {MAX_NAMES} tenants, by id or slug", got=names)
    return names


def _brief(row: RolloutRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "release": row.release,
        "state": row.state,
        "reason": row.reason,
        "wave": row.wave,
        "not_before": render.moment(row.not_before),
        "actor": row.actor,
        "created_at": render.moment(row.created_at),
        "finished_at": render.moment(row.finished_at),
        "seconds": render.seconds(row.created_at, row.finished_at),
        "spec": row.spec.to_json(),
    }


def _full(detail: RolloutDetail) -> dict[str, Any]:
    return {
        **_brief(detail.rollout),
        "counts": _counts(detail.counts),
        "waves": [
            {
                "wave": wave.wave,
                "counts": _counts(wave.counts),
                "started_at": render.moment(wave.started_at),
                "finished_at": render.moment(wave.finished_at),
            }
            for wave in detail.waves
        ],
        "failures": [
            {
                "file": failure.file,
                "statement": failure.statement,
                "error": failure.error,
                "tenants": failure.tenants,
                "example": failure.example,
            }
            for failure in detail.failures
        ],
        "snapshots": [_snapshot(detail.rollout, row) for row in detail.snapshots],
    }


def _snapshot(row: RolloutRow, snapshot: SnapshotRow) -> dict[str, Any]:
    """`kept_until` null: at least until the rollout has ended."""
    ended = row.finished_at
    kept = None if ended is None else ended + timedelta(days=row.spec.snapshot_days)
    return {
        "cluster": snapshot.cluster_id,
        "name": snapshot.name,
        "state": snapshot.state,
        "error": snapshot.error,
        "requested_at": render.moment(snapshot.requested_at),
        "available_at": render.moment(snapshot.available_at),
        "kept_until": render.moment(kept),
        "deleted_at": render.moment(snapshot.deleted_at),
    }


def _counts(counts: Counts) -> dict[str, int]:
    return {state: getattr(counts, state) for state in _STATES} | {"total": counts.total}


def _member(row: MemberRow) -> dict[str, Any]:
    return {
        "tenant": row.tenant_id,
        "slug": row.slug,
        "wave": row.wave,
        "cluster": row.cluster_id,
        "from_release": row.from_release,
        "state": row.state,
        "attempts": row.attempts,
        "next_attempt_at": render.moment(row.next_attempt_at),
        "file": row.file,
        "statement": row.statement,
        "error": row.error,
        "seconds": row.seconds,
        "started_at": render.moment(row.started_at),
        "finished_at": render.moment(row.finished_at),
    }

"""/v1/releases

A release is registered in two steps, so that no request is larger than any other: first each file's
contents, then the list of names and digests. The API takes no command: what a worker runs for another
tool's release comes from the worker's own folder.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.errors import Invalid
from controlplane.domain.release import RELEASE_NUMBER, Adapter
from controlplane.services import migration_lint, releases
from controlplane.services.releases import ReleaseDetail
from controlplane.store import release
from controlplane.store.release import FindingRow, ReleaseRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("releases", __name__, url_prefix="/v1/releases")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor")
        size, before = query.limit(), query.cursor("releases", query.text_position)
        with edge.registry.connection() as conn:
            rows = release.page(conn, before=before, limit=size + 1)
        rows, next_cursor = query.page("releases", rows, size, lambda row: [row.number])
        return render.listing([_brief(row) for row in rows], next_cursor)

    @views.get("/fleet")
    @edge.guard.allow(READERS)
    def fleet() -> Response:
        query.only()
        with edge.registry.connection() as conn:
            rows = release.fleet(conn)
        return render.listing([asdict(row) for row in rows], None)

    @views.get("/<number>")
    @edge.guard.allow(READERS)
    def show(number: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            detail = releases.show(conn, query.name(number, "release"))
        return jsonify(_full(detail))

    @views.post("/files")
    @edge.guard.allow(OPERATORS)
    def store_file() -> Response:
        query.only()
        text = body.read_json(frozenset({"body"})).get("body")
        if not isinstance(text, str):
            raise Invalid("body", "the file's contents as text", got=text)
        try:
            contents = text.encode()
        except UnicodeEncodeError as error:
            raise Invalid("body", "text without lone surrogates") from error
        with edge.registry.connection() as conn:
            digest = releases.store_file(conn, contents)
        return jsonify({"sha256": digest})

    @views.post("")
    @edge.guard.allow(OPERATORS)
    def create() -> Response:
        query.only()
        fields = body.read_json(frozenset({"adapter", "files"}))
        adapter = fields.get("adapter")
        if adapter not in list(Adapter):
            raise Invalid("adapter", f"one of {', '.join(Adapter)}", got=adapter)
        with edge.registry.connection() as conn:
            detail = releases.create(
                conn,
                Adapter(adapter),
                _files(fields.get("files")),
                migration_lint.dangers,
                actor=caller().actor,
            )
        response = jsonify(_full(detail))
        response.status_code = 201
        response.headers["Location"] = f"/v1/releases/{detail.release.number}"
        return response

    @views.post("/findings/<finding_id>/accept")
    @edge.guard.allow(OPERATORS)
    def accept(finding_id: str) -> Response:
        query.only()
        reason = render_reason(body.read_json(frozenset({"reason"})))
        with edge.registry.connection() as conn:
            row = releases.accept(
                conn, query.name(finding_id, "finding"), actor=caller().actor, reason=reason
            )
        return jsonify(_finding(row))

    return views


def render_reason(fields: dict[str, Any]) -> str:
    """Why, as the audit trail will have it."""
    reason = fields.get("reason")
    if not isinstance(reason, str) or not reason.isprintable() or not 3 <= len(reason.strip()) <= 200:
        raise Invalid("reason", "why, in 3 to 200 printable characters", got=reason)
    return reason.strip()


def number_of(fields: dict[str, Any]) -> str:
    number = fields.get("release")
    if not isinstance(number, str) or not RELEASE_NUMBER.match(number):
        raise Invalid("release", "a release's number, four digits", got=number)
    return number


def _files(value: object) -> list[tuple[str, str]]:
    expected = 'a list of {"name": …, "sha256": …}'
    if not isinstance(value, list):
        raise Invalid("files", expected, got=value)
    found = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "sha256"}:
            raise Invalid("files", expected, got=item)
        if not isinstance(item["name"], str) or not isinstance(item["sha256"], str):
            raise Invalid("files", expected, got=item)
        found.append((item["name"], item["sha256"]))
    return found


def _brief(row: ReleaseRow) -> dict[str, Any]:
    return {
        "number": row.number,
        "adapter": row.adapter,
        "checksum": row.checksum,
        "files": row.files,
        "open_findings": row.open_findings,
        "tenants": row.tenants,
        "actor": row.actor,
        "created_at": render.moment(row.created_at),
    }


def _full(detail: ReleaseDetail) -> dict[str, Any]:
    return {
        **_brief(detail.release),
        "files": [{"name": file.name, "sha256": file.sha256} for file in detail.files],
        "findings": [_finding(row) for row in detail.findings],
    }


def _finding(row: FindingRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "release": row.number,
        "rule": row.rule,
        "file": row.file,
        "line": row.line,
        "statement": row.statement,
        "message": row.message,
        "accepted_by": row.accepted_by,
        "accepted_at": render.moment(row.accepted_at),
        "reason": row.reason,
    }

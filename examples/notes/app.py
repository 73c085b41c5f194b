"""Notes: the smallest application in which each customer has a database of its own.

    gunicorn 'examples.notes.app:create_app()'

Nothing in the views names a tenant: the middleware has found it by the host, and `tenant_connection`
leads to its database and to no other.
"""

from __future__ import annotations

import os
import secrets
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, abort, flash, jsonify, redirect, render_template, request, session
from psycopg.rows import dict_row

from dataplane.context import bound_tenant, current_tenant, tenant_connection
from dataplane.errors import DataPlaneError
from dataplane.pages import answer, wants_json
from dataplane.settings import DataPlane, from_environment

MAX_BODY = 2000
NEWEST = 50


def create_app(dataplane: DataPlane | None = None) -> Flask:
    """`dataplane`: None builds it from the environment (see dataplane/settings.py)."""
    dataplane = dataplane or from_environment(os.environ)
    app = Flask(__name__)
    app.config.update(
        MAX_CONTENT_LENGTH=64 * 1024,
        # One secret for all the workers; without it each process draws its own and forgets it.
        SECRET_KEY=os.environ.get("NOTES_SECRET_KEY") or secrets.token_bytes(32),
        # `__Host-`: browsers send it to this very host only, and let no other host set it.
        SESSION_COOKIE_NAME="__Host-session",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.wsgi_app = dataplane.wsgi(app.wsgi_app)  # type: ignore[method-assign]
    app.register_error_handler(DataPlaneError, _answer)

    @app.get("/healthz")
    def health() -> Response:
        return jsonify(status="ok")

    @app.before_request
    def keep_sessions_apart() -> None:
        """The key that signs cookies is the same for every tenant, so a cookie says whose it is."""
        tenant = bound_tenant()
        if tenant is not None and session and session.get("tenant") != tenant.tenant_id:
            session.clear()

    @app.before_request
    def refuse_foreign_forms() -> None:
        """Another site's page must not write here with a visitor's cookies."""
        if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in (
            "none",
            "same-origin",
        ):
            abort(HTTPStatus.FORBIDDEN, "This form was sent from another site.")

    @app.get("/")
    def index() -> Response | str:
        with tenant_connection() as conn:
            cursor = conn.cursor(row_factory=dict_row)
            database = _one(cursor.execute("SELECT current_database() AS name"))["name"]
            notes = cursor.execute(
                "SELECT id, body, created_at FROM app.note ORDER BY created_at DESC, id DESC LIMIT %s",
                (NEWEST,),
            ).fetchall()
        tenant = current_tenant()
        if wants_json(request.headers.get("Accept")):
            rows = [{**note, "created_at": note["created_at"].isoformat()} for note in notes]
            return jsonify(tenant=tenant.slug, database=database, notes=rows)
        return render_template("notes.html", tenant=tenant, database=database, notes=notes)

    @app.post("/notes")
    def add() -> Any:
        body = (request.get_json() if request.is_json else request.form).get("body")
        if not isinstance(body, str) or not 1 <= len(body.strip()) <= MAX_BODY or "\0" in body:
            abort(HTTPStatus.BAD_REQUEST, f"body: expected 1 to {MAX_BODY} characters")
        with tenant_connection() as conn:
            row = conn.execute(
                "INSERT INTO app.note (body) VALUES (%s) RETURNING id", (body.strip(),)
            ).fetchone()
        if wants_json(request.headers.get("Accept")):
            return jsonify(id=row and row[0]), HTTPStatus.CREATED
        session["tenant"] = current_tenant().tenant_id
        flash("Saved.")
        return redirect("/", code=HTTPStatus.SEE_OTHER)

    return app


def _answer(error: DataPlaneError) -> Response:
    status, headers, body = answer(error, request.headers.get("Accept"))
    return Response(body, status, headers)


def _one(cursor: Any) -> dict[str, Any]:
    row: dict[str, Any] = cursor.fetchone()
    return row

"""Notes in Django, in one file: the WSGI middleware around Django's own application.

    gunicorn 'examples.notes_django.app:create_app()'

Django's DATABASES stays empty: what a view needs comes from `tenant_connection`, and the sessions are
in signed cookies, which say whose they are.
"""

from __future__ import annotations

import json
import os
import secrets
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.utils.html import escape
from django.views.decorators.csrf import csrf_exempt

from dataplane.context import current_tenant, tenant_connection
from dataplane.errors import DataPlaneError
from dataplane.pages import answer, wants_json
from dataplane.settings import DataPlane, from_environment
from dataplane.wsgi import TenantMiddleware


def health(_: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "ok"})


def index(request: HttpRequest) -> HttpResponse:
    with tenant_connection() as conn:
        rows = conn.execute(
            "SELECT id, body FROM app.note ORDER BY created_at DESC, id DESC LIMIT 50"
        ).fetchall()
    tenant = current_tenant()
    session = request.session
    if session.get("tenant") != tenant.tenant_id:  # the key that signs cookies is every tenant's
        session.flush()
        session["tenant"] = tenant.tenant_id
    session["visits"] = session.get("visits", 0) + 1
    if wants_json(request.headers.get("Accept")):
        notes = [{"id": number, "body": body} for number, body in rows]
        return JsonResponse({"tenant": tenant.slug, "visits": session["visits"], "notes": notes})
    items = "".join(f"<li>{escape(body)}</li>" for _, body in rows)
    return HttpResponse(f"<!doctype html><title>{escape(tenant.slug)}</title><ul>{items}</ul>")


@csrf_exempt  # JSON only: a form of another site can't send it
def add(request: HttpRequest) -> HttpResponse:
    if request.method != "POST" or request.content_type != "application/json":
        return JsonResponse({"error": "expected a POST of application/json"}, status=415)
    try:
        document = json.loads(request.body)
    except ValueError:
        document = None
    body = document.get("body") if isinstance(document, dict) else None
    if not isinstance(body, str) or not 1 <= len(body) <= 2000 or "\0" in body:
        return JsonResponse({"error": "body: expected 1 to 2000 characters"}, status=400)
    with tenant_connection() as conn:
        row = conn.execute("INSERT INTO app.note (body) VALUES (%s) RETURNING id", (body,)).fetchone()
    return JsonResponse({"id": row and row[0]}, status=201)


class DataPlaneErrors:
    """Django answers an exception of a view with a 500 of its own; ours have their own pages."""

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response: HttpResponse = self._get_response(request)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, DataPlaneError):
            return None
        status, headers, body = answer(error, request.headers.get("Accept"))
        return HttpResponse(body, status=status, headers=dict(headers))


urlpatterns = [path("healthz", health), path("", index), path("notes", add)]


def create_app(dataplane: DataPlane | None = None) -> TenantMiddleware:
    """`dataplane`: None builds it from the environment (see dataplane/settings.py)."""
    dataplane = dataplane or from_environment(os.environ)
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__,
            SECRET_KEY=os.environ.get("NOTES_SECRET_KEY") or secrets.token_urlsafe(32),
            ALLOWED_HOSTS=["*"],  # the tenant middleware has refused every host that is not a tenant's
            MIDDLEWARE=[
                "django.middleware.security.SecurityMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                f"{__name__}.DataPlaneErrors",
            ],
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            # `__Host-`: browsers send it to this very host only, and let no other host set it.
            SESSION_COOKIE_NAME="__Host-sessionid",
            SESSION_COOKIE_SECURE=True,
            USE_TZ=True,
        )
        django.setup()
    return dataplane.wsgi(get_wsgi_application())

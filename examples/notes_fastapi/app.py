"""Notes as an asynchronous API: FastAPI behind the ASGI middleware, on the same tenants' databases.

uvicorn --factory examples.notes_fastapi.app:create_app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI, Response
from psycopg.rows import class_row
from pydantic import BaseModel, StringConstraints

from dataplane.asgi import TenantMiddleware
from dataplane.context import current_tenant, tenant_connection_async
from dataplane.settings import DataPlane, from_environment

Body = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=r"^[^\x00]*$")
]


class NewNote(BaseModel):
    body: Body


class Note(BaseModel):
    id: int
    body: str
    created_at: datetime


class Page(BaseModel):
    tenant: str
    notes: list[Note]


def create_app(dataplane: DataPlane | None = None) -> FastAPI:
    """`dataplane`: None builds it from the environment (see dataplane/settings.py)."""
    plane = dataplane or from_environment(os.environ)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        plane.resolver.start()
        yield
        await plane.async_pools.close()
        plane.close()

    app = FastAPI(title="Notes", lifespan=lifespan)
    app.add_middleware(
        TenantMiddleware,
        resolver=plane.resolver,
        pools=plane.async_pools,
        trusted_proxies=plane.trusted_proxies,
    )

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    async def index(response: Response) -> Page:
        async with tenant_connection_async() as conn, conn.cursor(row_factory=class_row(Note)) as cursor:
            await cursor.execute(
                "SELECT id, body, created_at FROM app.note ORDER BY created_at DESC, id DESC LIMIT 50"
            )
            notes = await cursor.fetchall()
        # `__Host-`: browsers send it to this very host only, and let no other host set it.
        response.set_cookie("__Host-seen", str(len(notes)), secure=True, httponly=True, samesite="lax")
        return Page(tenant=current_tenant().slug, notes=notes)

    @app.post("/notes", status_code=201)
    async def add(note: NewNote) -> Note:
        async with tenant_connection_async() as conn, conn.cursor(row_factory=class_row(Note)) as cursor:
            await cursor.execute(
                "INSERT INTO app.note (body) VALUES (%s) RETURNING id, body, created_at", (note.body,)
            )
            made = await cursor.fetchone()
        assert made is not None  # noqa: S101  # RETURNING gives the row or raises
        return made

    return app

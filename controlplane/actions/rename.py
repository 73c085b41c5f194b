"""Give a tenant another slug, and so another host; for a while the one before leads to it.

Companies are renamed, and a slug was a guess at what a customer typed. Nothing outside is named by it, so
nothing is moved. But links, mail and bookmarks name the old host: it redirects for as long as whoever renames
says, and until then nobody else gets its slug. From then on it is free, and whoever gets it receives what is
still sent there. The tenant itself may take it back at any time, which ends the redirection.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict
from controlplane.domain.slug import validate_slug
from controlplane.domain.tenant import Lifecycle
from controlplane.store import tenant


class Rename(Parameters):
    slug: str = Field(
        title="a slug that is free, 3 to 30 characters",
        description="What it is to be called; it answers at this name of the zone.",
    )
    redirect_days: int = Field(
        default=30,
        ge=0,
        le=365,
        title="a whole number, 0 to 365",
        description="For which the old host leads to the new one, and nobody else gets the old slug.",
        json_schema_extra={"metavar": "DAYS"},
    )


def perform(asked: OfTenant[Rename]) -> Begun:
    conn, row, params = asked.conn, asked.row, asked.params
    until = tenant.redirect_end(conn, params.redirect_days)
    detail = _checked(asked, until)
    if params.slug == row.slug:
        return Begun(None, recorded=detail)
    tenant.set_slug(conn, row, params.slug, until=until)
    return Begun(detail, asked.converge(), recorded=detail)


def in_advance(asked: OfTenant[Rename]) -> dict[str, object]:
    return _checked(asked, tenant.redirect_end(asked.conn, asked.params.redirect_days))


def _checked(asked: OfTenant[Rename], until: datetime) -> dict[str, object]:
    """What it would do. Raises Invalid, Conflict where it can't be called so."""
    row, slug = asked.row, asked.params.slug
    validate_slug(slug, tenant_id=row.id)
    if slug == row.slug:
        return {"slug": slug, "state": "nothing to do: it is called so"}
    if row.spec.lifecycle is Lifecycle.CLOSED:
        raise Conflict(f"tenant {row.id} is {row.phase.value}: nobody is served at any host of it")
    tenant.require_free_slug(asked.conn, slug, row.id)
    end = until.isoformat(timespec="seconds") if asked.params.redirect_days else None
    return {"slug": slug, "former_slug": row.slug, "redirects_until": end}


register(
    Action(
        name="rename",
        summary="Give it another slug, and so another host. The old host leads to the new one for a while.",
        params=Rename,
        perform=perform,
        preview=in_advance,
        audit="tenant.slug",
        patience=600.0,
    )
)

"""Tenants."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, cast

from psycopg.errors import UniqueViolation
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict
from controlplane.domain.hostname import RefusedDomain
from controlplane.domain.notification import NotificationKind
from controlplane.domain.purge import RETURN_RUNBOOK
from controlplane.domain.tenant import Lifecycle, Phase, TenantSpec, phase_of
from controlplane.store import notification
from controlplane.store.registry import Connection, column, one, select

_TOLD = {
    (Lifecycle.ACTIVE, Lifecycle.SUSPENDED): NotificationKind.SUSPENDED,
    (Lifecycle.SUSPENDED, Lifecycle.ACTIVE): NotificationKind.RESUMED,
    (Lifecycle.CLOSED, Lifecycle.ACTIVE): NotificationKind.RESUMED,
}
"""By what was last brought about and what is now. Closing is notified when it is decided."""


class SlugTaken(Conflict):
    """Another tenant has this slug, or had it and redirects from it."""


@dataclass(frozen=True, slots=True)
class TenantRow:
    """`former_slugs`: until when the host of each leads to that of `slug`. `purge_after`: the end of its
    retention; `purged_at`: since then nothing is left of it outside."""

    id: str
    slug: str
    former_slugs: dict[str, datetime] = field(
        metadata={"read": lambda found: {slug: datetime.fromisoformat(end) for slug, end in found.items()}}
    )
    display_name: str
    customer_id: str
    spec: TenantSpec
    generation: int
    observed_generation: int
    status: dict[str, Any] | None
    observed_at: datetime | None
    release: str | None
    needs_attention: str | None
    runbook: str | None
    paid_at: datetime | None
    started_at: datetime | None
    ready_at: datetime | None
    created_at: datetime
    closed_at: datetime | None
    purge_after: datetime | None
    purged_at: datetime | None
    clone_of: str | None
    refused_domains: tuple[RefusedDomain, ...] = field(
        metadata={"read": lambda found: tuple(RefusedDomain(**domain) for domain in found)}
    )

    @property
    def phase(self) -> Phase:
        return phase_of(
            self.spec,
            reconciled=self.observed_generation == self.generation,
            ever_ready=self.ready_at is not None,
            started=self.started_at is not None,
            purged=self.purged_at is not None,
        )


RUNBOOK_REFUSED = "hostname-conflict"
_REFUSALS = SQL(
    "(SELECT left(string_agg('custom domain ' || (d->>'host') || ' ' || (d->>'reason'), '; '), 1000)"
    " FROM jsonb_array_elements(refused_domains) d)"
)
"""What `needs_attention` says of them; NULL where none is refused."""


def insert(
    conn: Connection,
    *,
    tenant_id: str,
    slug: str,
    display_name: str,
    customer_id: str,
    spec: TenantSpec,
    paid_at: datetime | None,
    release: str | None = None,
    clone_of: str | None = None,
) -> None:
    """`release`: the one it is born with, None where none is registered. `clone_of`: whose rows it gets.

    Raises SlugTaken; the caller's transaction stays usable (a savepoint is around the insert).
    """
    with _takes(slug), conn.transaction():
        _lock_slugs(conn, slug)
        require_free_slug(conn, slug, tenant_id)
        conn.execute(
            "INSERT INTO tenant"
            " (id, slug, display_name, customer_id, spec, paid_at, release, clone_of)"
            " VALUES (%(id)s, %(slug)s, %(name)s, %(customer)s, %(spec)s, %(paid)s, %(release)s,"
            "  %(clone_of)s)",
            {
                "id": tenant_id,
                "slug": slug,
                "name": display_name,
                "customer": customer_id,
                "spec": Jsonb(spec.to_json()),
                "paid": paid_at,
                "release": release,
                "clone_of": clone_of,
            },
        )


@contextmanager
def _takes(slug: str) -> Iterator[None]:
    """The index of slugs that tenants have has the last word."""
    try:
        yield
    except UniqueViolation as error:
        if error.diag.constraint_name == "tenant_slug_taken":
            raise SlugTaken(f"slug {slug} is taken") from error
        raise


def _lock_slugs(conn: Connection, *slugs: str) -> None:
    """Until the end of the transaction nobody else takes one of these, nor gives it up: a slug that a tenant
    has is found by a unique index and one that it had by none, and in between it must not slip through.
    In order, so that two who want both wait for each other and never for ever."""
    for slug in sorted(slugs):
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('slug:' || %s, 0))", [slug])


def require_free_slug(conn: Connection, slug: str, tenant_id: str | None) -> None:
    """Of all others than this tenant. Raises SlugTaken."""
    row = conn.execute(
        "SELECT id, former_slugs->>%(slug)s AS until FROM tenant WHERE id IS DISTINCT FROM %(id)s"
        " AND (slug = %(slug)s OR (former_slugs <> '{}' AND former_slugs ? %(slug)s)) LIMIT 1",
        {"slug": slug, "id": tenant_id},
    ).fetchone()
    if row is not None:
        until = "" if row["until"] is None else f": it leads to tenant {row['id']} until {row['until']}"
        raise SlugTaken(f"slug {slug} is taken{until}")


def get(conn: Connection, tenant_id: str, *, lock: bool = False) -> TenantRow:
    """Raises NotFound."""
    return one(find(conn, tenant_id, lock=lock), f"tenant {tenant_id}")


def find(conn: Connection, tenant_id: str, *, lock: bool = False) -> TenantRow | None:
    rest = f"FROM tenant WHERE id = %s{' FOR UPDATE' if lock else ''}"
    return select(conn, TenantRow, rest, [tenant_id]).fetchone()


def of_customers(conn: Connection, customer_ids: Sequence[str], *, lock: bool = False) -> list[TenantRow]:
    """Theirs, and those that contracts of theirs are bound to. `lock`: in the order of their ids, so that two
    who do this at once wait for each other and never for ever."""
    rest = (
        "FROM tenant WHERE customer_id = ANY(%(ids)s)"
        " OR id IN (SELECT tenant_id FROM contract WHERE customer_id = ANY(%(ids)s)) ORDER BY id"
    )
    values = {"ids": list(customer_ids)}
    return select(conn, TenantRow, f"{rest} FOR UPDATE" if lock else rest, values).fetchall()


def meant_by(conn: Connection, name: str) -> list[TenantRow]:
    """Whose id, slug, former slug, customer, contract or custom domain this is."""
    return select(
        conn,
        TenantRow,
        "FROM tenant WHERE id = %(name)s OR slug = %(name)s OR customer_id = %(name)s"
        " OR (former_slugs <> '{}' AND former_slugs ? %(name)s)"
        " OR id = (SELECT tenant_id FROM contract WHERE id = %(name)s)"
        " OR id = (SELECT tenant_id FROM hostname WHERE host = %(name)s) ORDER BY id",
        {"name": name},
    ).fetchall()


def page(conn: Connection, *, after: str | None, limit: int) -> list[TenantRow]:
    """By slug, those behind `after`."""
    return select(
        conn,
        TenantRow,
        "FROM tenant WHERE (%(after)s::text IS NULL OR slug > %(after)s) ORDER BY slug LIMIT %(limit)s",
        {"after": after, "limit": limit},
    ).fetchall()


def set_spec(conn: Connection, tenant_id: str, spec: TenantSpec) -> bool:
    """True where it differs from before; the generation rises only then."""
    data = Jsonb(spec.to_json())
    return (
        conn.execute(
            "UPDATE tenant SET spec = %s, generation = generation + 1 WHERE id = %s AND spec <> %s",
            [data, tenant_id, data],
        ).rowcount
        > 0
    )


def rename(conn: Connection, tenant_id: str, display_name: str) -> bool:
    """Its name is a part of what its routes say, so the generation rises; False where that is its name."""
    return (
        conn.execute(
            "UPDATE tenant SET display_name = %s, generation = generation + 1"
            " WHERE id = %s AND display_name <> %s",
            [display_name, tenant_id, display_name],
        ).rowcount
        > 0
    )


def redirect_end(conn: Connection, days: int) -> datetime:
    """So many days from now, by the clock that judges it."""
    [until] = column(conn, "SELECT clock_timestamp() + make_interval(days => %s)", [days])
    return cast(datetime, until)


def set_slug(conn: Connection, row: TenantRow, slug: str, *, until: datetime) -> None:
    """It is called `slug`; the one that it has, which `row` as it was locked says, leads there until then.
    One of its former slugs is no former one any more.

    Raises SlugTaken; the caller's transaction stays usable.
    """
    with _takes(slug), conn.transaction():
        _lock_slugs(conn, row.slug, slug)
        require_free_slug(conn, slug, row.id)
        conn.execute(
            "UPDATE tenant SET slug = %(slug)s, generation = generation + 1,"
            " former_slugs = (former_slugs - %(slug)s) || jsonb_build_object(slug, %(until)s::timestamptz)"
            " WHERE id = %(id)s",
            {"slug": slug, "until": until, "id": row.id},
        )


def release_slug(conn: Connection, tenant_id: str, slug: str) -> None:
    """Anybody may have it from now on; nothing where it is not one of its former slugs whose time is over."""
    conn.execute(
        "UPDATE tenant SET former_slugs = former_slugs - %(slug)s"
        " WHERE id = %(id)s AND (former_slugs->>%(slug)s)::timestamptz <= clock_timestamp()",
        {"slug": slug, "id": tenant_id},
    )


def set_customer(conn: Connection, tenant_id: str, customer_id: str) -> bool:
    """Who pays for it; False where that is so already."""
    return (
        conn.execute(
            "UPDATE tenant SET customer_id = %s WHERE id = %s AND customer_id <> %s",
            [customer_id, tenant_id, customer_id],
        ).rowcount
        > 0
    )


def rise(conn: Connection, tenant_id: str) -> None:
    """Something else than `spec` is wanted of it: what was reconciled is so no longer."""
    conn.execute("UPDATE tenant SET generation = generation + 1 WHERE id = %s", [tenant_id])


def mark_started(conn: Connection, tenant_id: str) -> None:
    """The first time counts."""
    conn.execute(
        "UPDATE tenant SET started_at = clock_timestamp() WHERE id = %s AND started_at IS NULL", [tenant_id]
    )


def set_status(conn: Connection, tenant_id: str, status: dict[str, Any]) -> None:
    conn.execute(
        "UPDATE tenant SET status = %s, observed_at = clock_timestamp() WHERE id = %s",
        [Jsonb(status), tenant_id],
    )


def mark_reconciled(conn: Connection, tenant_id: str, *, generation: int, observe_in: float | None) -> bool:
    """The spec of this generation is reality. False where the spec has moved on: look again. `observe_in`:
    seconds until the next periodic observation, None for never.

    What needs attention is over with it, but for what is about its contracts and not about this pass: one
    that is parked, that the customer of a closed tenant pays again, or custom domains that are refused. Where
    the tenant was suspended or came back it is notified here, when it is so.
    """
    row = conn.execute(
        SQL(
            "UPDATE tenant t SET observed_generation = %(generation)s,"
            " needs_attention = CASE WHEN s.keeps THEN needs_attention ELSE {refusals} END,"
            " runbook = CASE WHEN s.keeps THEN runbook WHEN {refusals} IS NOT NULL THEN %(refused)s END,"
            " observed_lifecycle = spec->>'lifecycle',"
            " next_observation_at = clock_timestamp() + make_interval(secs => %(look)s)"
            " FROM (SELECT o.observed_lifecycle AS before,"
            "        coalesce(o.runbook = %(return)s AND o.closed_at IS NOT NULL, false)"
            "        OR EXISTS (SELECT FROM contract"
            "         WHERE tenant_id = %(id)s AND outcome = 'parked') AS keeps"
            "         FROM tenant o WHERE o.id = %(id)s) s"
            " WHERE t.id = %(id)s AND t.generation = %(generation)s"
            " RETURNING s.before, spec->>'lifecycle' AS now, spec->>'subscription_status' AS status"
        ).format(refusals=_REFUSALS),
        {
            "id": tenant_id,
            "generation": generation,
            "look": observe_in,
            "return": RETURN_RUNBOOK,
            "refused": RUNBOOK_REFUSED,
        },
    ).fetchone()
    if row is None:
        return False
    kind = _TOLD.get((row["before"], row["now"]))
    if kind is not None:
        notification.add(conn, tenant_id, kind, once=str(generation), subscription_status=row["status"])
    return True


def mark_ready(conn: Connection, tenant_id: str) -> None:
    """Its own host serves it: the moment from which the customer can use what it paid for."""
    first = conn.execute(
        "UPDATE tenant SET ready_at = clock_timestamp() WHERE id = %s AND ready_at IS NULL", [tenant_id]
    )
    if first.rowcount:
        notification.add(conn, tenant_id, NotificationKind.READY, once="first")


def mark_closed(conn: Connection, tenant_id: str, *, retention_days: int) -> None:
    """Its contracts have ended: the clock of its retention runs from now."""
    row = conn.execute(
        "UPDATE tenant SET closed_at = clock_timestamp(),"
        " purge_after = clock_timestamp() + make_interval(days => %s)"
        " WHERE id = %s AND closed_at IS NULL RETURNING closed_at, purge_after",
        [retention_days, tenant_id],
    ).fetchone()
    if row is not None:
        closed, until = row["closed_at"].isoformat(), row["purge_after"].isoformat()
        notification.add(
            conn, tenant_id, NotificationKind.CLOSING, once=closed, closed_at=closed, purge_after=until
        )


def mark_reopened(conn: Connection, tenant_id: str) -> None:
    conn.execute("UPDATE tenant SET closed_at = NULL, purge_after = NULL WHERE id = %s", [tenant_id])


def mark_purged(conn: Connection, tenant_id: str) -> None:
    """The first time counts."""
    conn.execute(
        "UPDATE tenant SET purged_at = clock_timestamp() WHERE id = %s AND purged_at IS NULL", [tenant_id]
    )


RETENTION_LEFT = (
    "CASE WHEN t.purged_at IS NULL AND t.purge_after IS NOT NULL THEN"
    " greatest(extract(epoch FROM t.purge_after - clock_timestamp())::float8, 0) END"
)
"""Seconds until the data of tenant `t` may go, 0 from then on; NULL for one that is not closed, or is
purged."""


REDIRECTS = (
    "(SELECT coalesce(jsonb_object_agg(key,"
    "  greatest(extract(epoch FROM value::timestamptz - clock_timestamp())::float8, 0)), '{}')"
    " FROM jsonb_each_text(t.former_slugs))"
)
"""The former slugs of tenant `t`, each with the seconds for which it still redirects, 0 from the end on."""


def retention_left(conn: Connection, tenant_id: str) -> float | None:
    """See `RETENTION_LEFT`; None for an unknown tenant too."""
    found = column(
        conn, SQL("SELECT {} FROM tenant t WHERE t.id = %s").format(SQL(RETENTION_LEFT)), [tenant_id]
    )
    return found[0] if found else None


def clones_of(conn: Connection, tenant_id: str) -> list[str]:
    """Tenants that have its rows, or are getting them, and are not purged."""
    return column(
        conn, "SELECT id FROM tenant WHERE clone_of = %s AND purged_at IS NULL ORDER BY id", [tenant_id]
    )


def set_attention(conn: Connection, tenant_id: str, *, reason: str | None, runbook: str | None) -> None:
    """The same runbook again is not notified again; a new one is. That a closed tenant's customer pays again
    is not overwritten: it stays until `end_return`."""
    row = conn.execute(
        "UPDATE tenant t SET needs_attention = %(reason)s, runbook = %(runbook)s"
        " FROM (SELECT runbook AS before FROM tenant WHERE id = %(id)s) o WHERE t.id = %(id)s"
        " AND (o.before IS DISTINCT FROM %(return)s OR %(runbook)s::text IS NOT DISTINCT FROM %(return)s"
        "  OR t.closed_at IS NULL)"
        " RETURNING o.before",
        {
            "reason": None if reason is None else reason[:1000],
            "runbook": runbook,
            "id": tenant_id,
            "return": RETURN_RUNBOOK,
        },
    ).fetchone()
    if row is None or runbook is None or row["before"] == runbook:
        return
    once = secrets.token_hex(8)  # each time that it begins
    notification.add(
        conn,
        tenant_id,
        NotificationKind.NEEDS_ATTENTION,
        once=once,
        reason="" if reason is None else reason[:1000],
        runbook=runbook,
    )


def refused_domains(conn: Connection, tenant_id: str) -> tuple[RefusedDomain, ...]:
    row = find(conn, tenant_id)
    return () if row is None else row.refused_domains


def set_refused_domains(conn: Connection, tenant_id: str, refused: Sequence[RefusedDomain]) -> bool:
    """Record which custom domains it did not get and why; True where that differs from before.

    A person is needed and a notification is sent as long as there is one. What else needs attention is not
    covered up: `mark_reconciled` puts this back once the other is over."""
    before = refused_domains(conn, tenant_id)
    changed = before != tuple(refused)
    if changed:
        conn.execute(
            SQL(
                "UPDATE tenant SET needs_attention = NULL, runbook = NULL"
                " WHERE id = %s AND runbook = %s AND needs_attention = {}"
            ).format(_REFUSALS),
            [tenant_id, RUNBOOK_REFUSED],
        )
        conn.execute(
            "UPDATE tenant SET refused_domains = %s WHERE id = %s",
            [Jsonb([asdict(domain) for domain in refused]), tenant_id],
        )
    conn.execute(
        SQL(
            "UPDATE tenant SET needs_attention = {refusals}, runbook = %s"
            " WHERE id = %s AND runbook IS NULL AND {refusals} IS NOT NULL"
        ).format(refusals=_REFUSALS),
        [RUNBOOK_REFUSED, tenant_id],
    )
    if changed and refused:
        notification.add(
            conn,
            tenant_id,
            NotificationKind.NEEDS_ATTENTION,
            once=secrets.token_hex(8),
            reason="; ".join(map(str, refused))[:1000],
            runbook=RUNBOOK_REFUSED,
        )
    return changed


def end_return(conn: Connection, tenant_id: str) -> None:
    """Its customer's contracts have ended. What else needs attention an observation finds, due now."""
    conn.execute(
        "UPDATE tenant SET needs_attention = NULL, runbook = NULL, next_observation_at = clock_timestamp()"
        " WHERE id = %s AND runbook = %s",
        [tenant_id, RETURN_RUNBOOK],
    )


_MOMENT = "to_char(({}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') || '+00:00'"
"""As `spec` writes moments that came from Stripe, whole seconds in UTC: their order is that of the text,
which an index can have."""


def customers_past_grace(conn: Connection, *, limit: int) -> list[str]:
    """Of tenants that are still served and whose grace is over."""
    over = "spec->>'lifecycle' = 'active' AND spec->>'grace_ends_at' <= " + _MOMENT.format("now()")
    statement = f"SELECT customer_id FROM tenant WHERE {over} ORDER BY spec->>'grace_ends_at' LIMIT %s"  # noqa: S608 — constants
    return list(dict.fromkeys(column(conn, statement, [limit])))


TRIAL_WARNING_DAYS = 3


def notify_trials(conn: Connection, *, limit: int) -> None:
    """A notification for each trial that ends within three days, once for each end."""
    soon = _MOMENT.format("statement_timestamp() + make_interval(days => %s)")
    rows = conn.execute(
        SQL(
            "SELECT t.id, t.spec->>'trial_ends_at' AS ends FROM tenant t"
            " WHERE t.spec->>'lifecycle' = 'active' AND t.spec->>'trial_ends_at' <= {}"
            " AND NOT EXISTS (SELECT FROM notification n WHERE n.tenant_id = t.id AND n.kind = %s"
            "  AND n.once = t.spec->>'trial_ends_at') LIMIT %s"
        ).format(SQL(soon)),
        [TRIAL_WARNING_DAYS, NotificationKind.TRIAL_ENDING.value, limit],
    ).fetchall()
    for row in rows:
        notification.add(
            conn, row["id"], NotificationKind.TRIAL_ENDING, once=row["ends"], trial_ends_at=row["ends"]
        )


def due_for_observation(conn: Connection, *, limit: int) -> list[str]:
    """Tenants whose periodic observation has come; it is put off at once, so two that look don't both ask.
    Locked in the order of their ids, as whoever locks several does."""
    return column(
        conn,
        "WITH due AS (SELECT id FROM tenant WHERE id IN (SELECT id FROM tenant"
        "   WHERE next_observation_at <= statement_timestamp() ORDER BY next_observation_at LIMIT %s)"
        "  ORDER BY id FOR NO KEY UPDATE)"
        " UPDATE tenant SET next_observation_at = NULL FROM due WHERE tenant.id = due.id RETURNING tenant.id",
        [limit],
    )

"""What is old goes, what waits for a person stays, and neither costs more the more there is of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks.history import fill
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.job import JobKind, Lane
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.services import timers
from controlplane.store import event, history, job, notification, operation, rollout_member, summary, tenant
from controlplane.store.registry import Connection, Registry, one
from tests.harness.engine import CATALOGUE, ZONE

# ---------------------------------------------------------------------------------- by an index

KEYS_WITHOUT_INDEX = {
    "transfer(lived_on)": "a placement is never deleted: its names are never used again",
    "transfer(source)": "a placement is never deleted: its names are never used again",
    "transfer(target)": "a placement is never deleted: its names are never used again",
    "rehearsal(release)": "a release is never deleted: a trigger refuses it",
    "rollout(release)": "a release is never deleted: a trigger refuses it",
}


def test_every_foreign_key_has_an_index_by_which_a_delete_finds_its_rows(registry: Registry) -> None:
    with registry.connection() as conn:
        rows = conn.execute(
            """
            SELECT c.conrelid::regclass || '(' || (
                       SELECT string_agg(attname, ', ' ORDER BY n)
                         FROM unnest(c.conkey) WITH ORDINALITY k (num, n)
                         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num) || ')' AS key
              FROM pg_constraint c
             WHERE c.contype = 'f' AND NOT EXISTS (
                   SELECT FROM pg_index i
                    WHERE i.indrelid = c.conrelid AND i.indpred IS NULL AND i.indisvalid
                      AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)
             ORDER BY 1
            """
        ).fetchall()
    assert [row["key"] for row in rows] == sorted(KEYS_WITHOUT_INDEX)


MANY = 5_000
ENDED = (
    "INSERT INTO job_history (id, kind, subject, state, attempts, fencing_token, causes, cause_count,"
    " created_at, started_at, finished_at)"
)
NUMBER = "nextval(pg_get_serial_sequence('job', 'id'))"
BY_HAND = '[{"reason": "asked for by hand", "actor": "support"}]'
_ID = "'t-' || translate(lpad(n::text, 12, '0'), '0189', 'abcd')"
_LARGE = (
    "INSERT INTO tenant (id, slug, display_name, customer_id, spec, next_observation_at)"
    f" SELECT {_ID}, 'slug-' || n, 'Tenant', 'cus_' || n, '{{\"lifecycle\": \"active\"}}',"
    "  clock_timestamp() + make_interval(secs => n) FROM generate_series(1, %(many)s) AS n",
    f"{ENDED} SELECT {NUMBER}, 'tenant', id, 'done', 1, 1, '{BY_HAND}', 1, now(), now(), now() FROM tenant",
    f"{ENDED} SELECT {NUMBER}, 'tenant', id, 'parked', 1, 1, '{BY_HAND}', 1, now(), now(), now()"
    " FROM tenant ORDER BY id LIMIT 5",
    "INSERT INTO job (kind, subject, lock, lane, priority, due_at)"
    " SELECT 'tenant', id, id, 'quick', 3, clock_timestamp() + interval '1 hour' FROM tenant",
    "INSERT INTO job (kind, subject, lock, lane, priority) VALUES ('seal', 'seal', 'seal', 'quick', 3)",
    "UPDATE job SET due_at = clock_timestamp() WHERE id IN (SELECT id FROM job ORDER BY id LIMIT 3)",
    "UPDATE job SET state = 'running', fencing_token = 1, holder = 'w', lease_until = '-infinity'"
    " WHERE id IN (SELECT id FROM job ORDER BY id DESC OFFSET 1 LIMIT 2)",
    "INSERT INTO stripe_event (id, type, livemode, created_at, body, subject, state, received_at, handled_at)"
    " SELECT 'evt_' || n, 'invoice.paid', false, now(), 'body', 'sub_' || n, 'applied',"
    "  now() - make_interval(secs => n), now() - make_interval(secs => n)"
    " FROM generate_series(1, %(many)s) AS n",
    "INSERT INTO notification (id, tenant_id, kind, once, payload, state, finished_at)"
    " SELECT 'msg_' || lpad(to_hex(row_number() OVER ()), 32, '0'), id, 'ready', 'first', '{}', 'delivered',"
    "  clock_timestamp() FROM tenant",
    "INSERT INTO preview (tenant_id, actor, state, finished_at)"
    " SELECT id, 'support', 'done', clock_timestamp() FROM tenant",
    "UPDATE tenant SET next_observation_at = clock_timestamp() WHERE slug = 'slug-7'",
    "INSERT INTO release (number, adapter, checksum, actor) VALUES ('0002', 'sql', 'x', 'x')",
    "INSERT INTO rollout (release, state, spec, actor)"
    " VALUES ('0002', 'running', '{\"concurrency\": 16, \"per_cluster\": 4}', 'x')",
    "INSERT INTO rollout_member (rollout_id, tenant_id, wave, cluster_id)"
    " SELECT rollout.id, tenant.id, 0, 'c-' || right(tenant.id, 2) FROM rollout, tenant",
    "INSERT INTO job (kind, subject, lock, lane, priority, state, fencing_token, holder, lease_until)"
    " SELECT 'member', rollout_id || '/' || tenant_id, 'database:' || tenant_id, 'long', 2, 'running', 1,"
    "  'x', 'infinity' FROM rollout_member ORDER BY tenant_id LIMIT 16",
    "UPDATE rollout_member SET state = 'running' WHERE tenant_id IN"
    " (SELECT split_part(subject, '/', 2) FROM job WHERE kind = 'member')",
    "UPDATE tenant SET needs_attention = 'look', runbook = 'retrying' WHERE slug = 'slug-8'",
)


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer, registry_template: str) -> Iterator[Registry]:
    """Five thousand of everything, of which next to nothing is due or old."""
    url = postgres_server.create_database("large_history", template=registry_template)
    with Registry(url) as registry, registry.connection() as conn:
        fill(conn, operations=MANY, runs=3 * MANY, days=80)
        for statement in _LARGE:
            conn.execute(statement.encode(), {"many": MANY} if "%(" in statement else None)
        conn.execute(
            "UPDATE job_history SET finished_at = '2020-01-01' WHERE id % 500 = 0 AND state = 'done'"
        )
        conn.execute("ANALYZE")
        yield registry
    postgres_server.drop_database("large_history")


def _read_by_scans(conn: Connection) -> dict[str, int]:
    conn.execute("SELECT pg_stat_force_next_flush()")
    rows = conn.execute("SELECT relname, coalesce(seq_tup_read, 0) AS n FROM pg_stat_user_tables").fetchall()
    return {row["relname"]: row["n"] for row in rows}


def _took(conn: Connection, index: str) -> int:
    conn.execute("SELECT pg_stat_force_next_flush()")
    row = conn.execute("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s", [index])
    return int(one(row.fetchone())["idx_scan"])


LOOKS_FOR_WORK: dict[str, tuple[Callable[[Connection], object], str]] = {
    "prune": (lambda conn: history.prune(conn, limit=500), "terraform_run_operation"),
    "is there one for a duty": (lambda conn: job.keep_due(conn, JobKind.SEAL), "job_subject"),
    "events about a subject": (lambda conn: event.received(conn, "sub_7"), "stripe_event_received"),
    "a notification that is due": (notification.next_due, "notification_waiting"),
    "observations, graces and trials": (
        lambda conn: timers.run(conn, parse_catalogue(CATALOGUE, source="x"), zone=ZONE, limit=500),
        "tenant_next_observation",
    ),
    "a claim of anything": (lambda conn: job.claim(conn, Lane.QUICK, holder="w", seconds=60), "job_due"),
    "a claim of the oldest": (
        lambda conn: job.claim(conn, Lane.QUICK, holder="w", seconds=60, oldest=True),
        "job_due",
    ),
    "a take-over": (lambda conn: job.take_over(conn, Lane.QUICK, holder="v", seconds=60), "job_holder"),
    "a beat": (
        lambda conn: job.beat(conn, "w", [1], lanes=[Lane.QUICK], version="", seconds=60),
        "job_holder",
    ),
    "who of a rollout may be started": (
        lambda conn: rollout_member.turn(conn, _rollout(conn)),
        "rollout_member_pending",
    ),
    "how many need attention": (summary.needing_attention, "tenant_attention"),
    "operations that are parked": (
        lambda conn: operation.page(conn, before=None, limit=50, state="parked"),
        "job_history_parked",
    ),
    "the newest operations": (
        lambda conn: operation.page(conn, before=None, limit=50),
        "job_history_pkey",
    ),
    "the past of one tenant": (
        lambda conn: operation.page(conn, before=None, limit=50, resource_id="tenant-7"),
        "job_history_subject",
    ),
    "who has a slug": (lambda conn: tenant.require_free_slug(conn, "a-new-one", None), "tenant_former_slugs"),
    "one operation": (lambda conn: operation.get(conn, 7), "job_history_absorbed"),
}


def _rollout(conn: Connection) -> int:
    return int(one(conn.execute("SELECT id FROM rollout").fetchone())["id"])


@pytest.mark.parametrize("name", LOOKS_FOR_WORK)
def test_no_look_for_work_reads_a_whole_table(large: Registry, name: str) -> None:
    """By the server's own counters, which see the foreign keys' triggers too."""
    act, index = LOOKS_FOR_WORK[name]
    with large.connection() as conn:
        before, taken = _read_by_scans(conn), _took(conn, index)
        act(conn)
        after = _read_by_scans(conn)
        read = {table: after[table] - before[table] for table in after}
        assert {table: n for table, n in read.items() if n >= MANY / 2} == {}
        assert _took(conn, index) > taken


# ------------------------------------------------------------------------------- what goes, what stays

TENANT = "t-abcdefghijkl"


@pytest.fixture
def conn(registry: Registry) -> Iterator[Connection]:
    with registry.connection() as opened:
        opened.execute(
            "INSERT INTO tenant (id, slug, display_name, customer_id, spec)"
            " VALUES (%s, 'acme', 'Acme', 'cus_1', '{}')",
            [TENANT],
        )
        yield opened


def _operation(conn: Connection, state: str, *, days: float, asked_for: bool = True) -> int:
    """That ended so many days ago, or has waited so long. Nobody `asked_for` a periodic observation."""
    if state == "waiting":
        number = job.ensure(conn, JobKind.TENANT, TENANT, reason="asked for by hand", actor="support")
        conn.execute(
            "UPDATE job SET created_at = now() - make_interval(secs => 86400 * %s::float8) WHERE id = %s",
            [days, number],
        )
        return number
    row = conn.execute(
        f"{ENDED} SELECT {NUMBER}, 'tenant', %s, %s, 1, 1, %s, %s, at, at, at"
        " FROM (SELECT now() - make_interval(secs => 86400 * %s::float8) AS at) AS x RETURNING id".encode(),
        [TENANT, state, BY_HAND if asked_for else "[]", int(asked_for), days],
    )
    return int(one(row.fetchone())["id"])


def _left(conn: Connection, table: str, column: str = "id") -> list[object]:
    return [row[column] for row in conn.execute(f"SELECT {column} FROM {table} ORDER BY 1".encode())]


def _prune(conn: Connection, *, limit: int = 2) -> int:
    """Until nothing old is left; how many went."""
    total = 0
    while gone := history.prune(conn, limit=limit):
        total += gone
    return total


def test_operations_go_with_their_steps_when_their_days_are_over(conn: Connection) -> None:
    gone = [_operation(conn, "done", days=91), _operation(conn, "done", days=3, asked_for=False)]
    kept = [
        _operation(conn, "done", days=89),
        _operation(conn, "done", days=1, asked_for=False),
        _operation(conn, "waiting", days=400),
    ]
    for number in (*gone, *kept):
        conn.execute(
            "INSERT INTO step (operation_id, seq, name, reason, state)"
            " VALUES (%s, 1, 'publish', 'x', 'done')",
            [number],
        )
        conn.execute(
            "INSERT INTO step_event (operation_id, seq, kind, address, action, message)"
            " VALUES (%s, 1, 'x', 'x', 'x', 'x')",
            [number],
        )
        conn.execute(
            "INSERT INTO terraform_run (workspace, operation_id, who) VALUES ('w', %s, 'x')", [number]
        )
    assert _prune(conn) == len(gone)
    assert _left(conn, "operation") == kept
    for table in ("step", "step_event", "terraform_run"):
        assert _left(conn, table, "operation_id") == kept


def test_a_parked_operation_stays_until_a_newer_one_says_how_it_is(conn: Connection) -> None:
    """The newest one says why a person is needed, however long that takes."""
    old, newest = _operation(conn, "parked", days=200), _operation(conn, "parked", days=100)
    assert _prune(conn) == 1
    assert _left(conn, "operation") == [newest]
    assert old < newest


def test_events_lose_their_body_first_and_go_a_year_later(conn: Connection) -> None:
    days = history.KEEP_EVENTS_DAYS
    for name, state, age in (
        ("evt_1_new", "applied", history.KEEP_BODIES_DAYS - 1),
        ("evt_2_handled", "applied", history.KEEP_BODIES_DAYS + 1),
        ("evt_3_ignored", "ignored", history.KEEP_BODIES_DAYS + 1),
        ("evt_4_parked", "parked", days + 1),
        ("evt_5_received", "received", days + 1),
        ("evt_6_old", "applied", days + 1),
        ("evt_7_old", "ignored", days + 1),
    ):
        conn.execute(
            "INSERT INTO stripe_event (id, type, livemode, created_at, body, subject, state, received_at,"
            "  handled_at)"
            " VALUES (%(id)s, 'x', false, now(), 'body', 'sub_1', %(state)s,"
            "  now() - make_interval(days => %(age)s), now() - make_interval(days => %(age)s))",
            {"id": name, "state": state, "age": age},
        )
    _prune(conn)
    left = {row["id"]: bytes(row["body"]) for row in conn.execute("SELECT id, body FROM stripe_event")}
    assert left == {
        "evt_1_new": b"body",
        "evt_2_handled": b"",
        "evt_3_ignored": b"",
        "evt_4_parked": b"body",
        "evt_5_received": b"body",
    }


def test_notices_and_previews_that_are_over_go(conn: Connection) -> None:
    for number, (state, age) in enumerate(
        [("delivered", 91), ("dead", 91), ("no_destination", 91), ("waiting", 91), ("delivered", 89)]
    ):
        conn.execute(
            "INSERT INTO notification (id, tenant_id, kind, once, payload, state, finished_at)"
            " VALUES ('msg_' || lpad(%(n)s::text, 32, '0'), %(tenant)s, 'ready', %(n)s::text, '{}',"
            "  %(state)s,"
            "  CASE WHEN %(state)s <> 'waiting' THEN now() - make_interval(days => %(age)s) END)",
            {"n": number, "tenant": TENANT, "state": state, "age": age},
        )
    for state, age in (("done", 31), ("failed", 31), ("waiting", 31), ("done", 29)):
        conn.execute(
            "INSERT INTO preview (tenant_id, actor, state, finished_at)"
            " VALUES (%(tenant)s, 'support', %(state)s,"
            "  CASE WHEN %(state)s <> 'waiting' THEN now() - make_interval(days => %(age)s) END)",
            {"tenant": TENANT, "state": state, "age": age},
        )
    assert _prune(conn) == 5
    assert _left(conn, "notification", "once") == ["3", "4"]
    assert _left(conn, "preview") == [3, 4]


def test_a_process_that_has_said_nothing_for_a_day_is_gone(conn: Connection) -> None:
    for name, hours in (("dead", 25), ("silent", 23), ("alive", 0)):
        conn.execute(
            "INSERT INTO process (id, lanes, version, heartbeat_at)"
            " VALUES (%s, '{quick}', '', now() - make_interval(hours => %s))",
            [name, hours],
        )
    assert _prune(conn) == 1
    assert _left(conn, "process") == ["alive", "silent"]

"""Rows carried between real servers while they change: none lost, none doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from controlplane.domain.errors import LeaseLost, NeedsHuman
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.moves import PostgresMoves, stream
from controlplane.workers.providers.ports import HandedOver, MoveDescription
from tests.harness.databases import (
    LOGICAL,
    Server,
    run_server,
    write_migrations,
)
from tests.harness.move_servers import (
    Pair,
    Writer,
    going,
    make_pair,
)

NOTES = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE notes (id bigint PRIMARY KEY, body text NOT NULL,
  size int GENERATED ALWAYS AS (length(body)) STORED);
CREATE TABLE kinds (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, mood mood,
  moods mood[], big text, doc jsonb, at timestamptz DEFAULT now(), raw bytea);
CREATE TABLE items (kind int REFERENCES kinds, n int, PRIMARY KEY (kind, n));
CREATE TABLE log (line text);
CREATE TABLE parted (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE TABLE touched (id serial PRIMARY KEY, by_trigger int NOT NULL DEFAULT 0);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO app.log VALUES ('t'); RETURN NEW; END $$;
CREATE TRIGGER touch AFTER INSERT ON touched FOR EACH ROW EXECUTE FUNCTION touch();
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM kinds;
INSERT INTO kinds (name) VALUES ('born with');
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with run_server(options=LOGICAL) as first, run_server() as second:
        yield first, second


@pytest.fixture
def pair(servers: tuple[Server, Server], tmp_path: Path) -> Iterator[Pair]:
    made = make_pair(*servers, write_migrations(tmp_path / "m", _0001_notes=NOTES))
    yield made
    made.end()


def cut_over(pair: Pair) -> HandedOver:
    return cut_over_as(pair, 1)


def cut_over_as(pair: Pair, fencing_token: int) -> HandedOver:
    done: list[str] = []
    found = pair.moves.hand_over(
        pair.source, pair.target, going(fencing_token), pause=pair.close, cut=lambda: done.append("cut")
    )
    assert done == ["cut"]
    return found


def test_nothing_is_lost_or_doubled_under_writes(pair: Pair) -> None:
    with Writer(pair) as writer:
        time.sleep(0.3)
        pair.moves.begin(pair.source, pair.target, going())
        time.sleep(0.3)
        copied = pair.moves.copy(pair.source, pair.target, going())
        time.sleep(0.5)
        pair.moves.follow(pair.source, pair.target, going())
        found = cut_over(pair)
    assert copied.tables == 6
    assert found.differing == []
    assert found.checked == "before"
    assert writer.written > 100
    there = dict(pair.rows(1, "SELECT id, body FROM notes"))
    here = dict(pair.rows(0, "SELECT id, body FROM notes"))
    assert there == here
    reconciled = {n for n in writer.journal if n not in writer.doubtful}
    assert {n: there.get(n) for n in reconciled} == {n: writer.journal[n] for n in reconciled}
    assert set(there) - set(writer.journal) <= writer.doubtful
    pair.moves.clear(pair.source, pair.target)
    assert pair.moves.observe(pair.source, pair.target) == MoveDescription(streaming=False, copied=False)
    assert pair.rows(0, "SELECT slot_name FROM pg_replication_slots") == []
    assert pair.rows(0, "SELECT pubname FROM pg_publication") == []


def test_every_kind_of_change_is_carried(pair: Pair) -> None:
    pair.moves.begin(pair.source, pair.target, going())
    with pair.writing() as conn:
        conn.execute(
            "INSERT INTO kinds (name, mood, moods, big, doc, raw) SELECT 'k' || n, 'good', '{good,bad}',"
            " repeat(md5(n::text), 2000), '{\"a\": [1, null]}', '\\xdeadbeef' FROM generate_series(1, 20) n"
        )
        conn.execute("INSERT INTO parted SELECT n, '2026-06-20'::date + n FROM generate_series(1, 20) n")
    assert pair.moves.copy(pair.source, pair.target, going()).rows == 41
    with pair.writing() as conn:
        conn.execute("UPDATE kinds SET mood = 'bad' WHERE name < 'k15'")  # `big` is out of line and untouched
        conn.execute("UPDATE kinds SET id = DEFAULT, big = 'x' WHERE name = 'k3'")
        conn.execute("INSERT INTO items SELECT id, 1 FROM kinds")
        conn.execute("UPDATE items SET n = 2 WHERE kind > 5")
        conn.execute("UPDATE parted SET day = '2026-12-01' WHERE id = 1")  # to another partition
        conn.execute("INSERT INTO log VALUES ('same'), ('same'), (NULL)")
        conn.execute("INSERT INTO touched (by_trigger) VALUES (1), (2)")
        conn.execute("INSERT INTO notes (id, body) VALUES (1, 'gone')")
        with conn.transaction(force_rollback=True):
            conn.execute("INSERT INTO notes (id, body) VALUES (2, 'rolled back')")
    pair.owner(0, "TRUNCATE notes", "REFRESH MATERIALIZED VIEW counted")
    with pair.writing() as conn:
        conn.execute("INSERT INTO notes (id, body) VALUES (7, 'after')")
    assert pair.moves.follow(pair.source, pair.target, going()) > 50
    assert cut_over(pair).differing == []
    for query in (
        "SELECT * FROM kinds ORDER BY id",
        "SELECT * FROM items ORDER BY kind, n",
        "SELECT * FROM parted ORDER BY id",
        "SELECT line FROM log ORDER BY line",
        "SELECT * FROM touched ORDER BY id",
        "SELECT id, body, size FROM notes",
        "SELECT last_value, is_called FROM touched_id_seq",
        "SELECT last_value, is_called FROM kinds_id_seq",
    ):
        assert pair.rows(1, query) == pair.rows(0, query), query
    assert pair.rows(1, "SELECT id FROM notes") == [(7,)]
    assert pair.rows(1, "SELECT n FROM counted") == [(21,)]
    pair.moves.clear(pair.source, pair.target)
    with pair.servers[1].superuser(pair.target.placement.database) as conn:
        settings = conn.execute("SELECT setconfig FROM pg_db_role_setting").fetchall()
    assert "session_replication_role" not in str(settings)


def test_a_neighbour_that_leaves_its_transaction_open_holds_up_no_move(
    servers: tuple[Server, Server], pair: Pair, tmp_path: Path
) -> None:
    """Once more while the copy waits for those that ran when it began."""
    neighbour = make_pair(*servers, write_migrations(tmp_path / "n", _0001_notes=NOTES))
    moves = PostgresMoves(servers[0].secrets, EndpointMap(), sslmode="disable", lock_timeout=5, left_open=0)
    for act in (moves.begin, moves.copy):
        with pytest.raises(psycopg.OperationalError), neighbour.writing() as conn:  # noqa: PT012
            conn.execute("BEGIN")
            conn.execute("INSERT INTO notes (id, body) VALUES (1, 'held')")
            act(pair.source, pair.target, going())
            conn.execute("COMMIT")
    with neighbour.writing() as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM notes")  # reads alone: in nobody's way
        moves.copy(pair.source, pair.target, going())
        conn.execute("COMMIT")
    neighbour.end()


def test_two_databases_of_one_server(servers: tuple[Server, Server], tmp_path: Path) -> None:
    pair = make_pair(servers[0], servers[0], write_migrations(tmp_path / "m", _0001_notes=NOTES))
    with Writer(pair):
        time.sleep(0.2)
        pair.moves.begin(pair.source, pair.target, going())
        pair.moves.copy(pair.source, pair.target, going())
        found = cut_over(pair)
    assert found.differing == []
    assert pair.rows(1, "SELECT * FROM notes ORDER BY id") == pair.rows(0, "SELECT * FROM notes ORDER BY id")
    pair.moves.clear(pair.source, pair.target)
    pair.end()
    with pair.servers[0].superuser() as conn:
        named = conn.execute(
            "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, %s)", [pair.source.placement.database]
        ).fetchone()
    assert named == (0,)


def test_a_worker_that_slept_through_its_lease_is_refused(pair: Pair) -> None:
    pair.moves.begin(pair.source, pair.target, going(1))
    pair.moves.copy(pair.source, pair.target, going(2))
    with pytest.raises(LeaseLost):
        pair.moves.copy(pair.source, pair.target, going(1))
    with pytest.raises(LeaseLost):
        pair.moves.follow(pair.source, pair.target, going(1))
    pair.moves.follow(pair.source, pair.target, going(2))


def test_a_piece_that_was_made_and_not_given_up_is_not_made_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.moves.begin(pair.source, pair.target, going())
    pair.moves.copy(pair.source, pair.target, going())
    with pair.writing() as conn:
        conn.execute("INSERT INTO notes (id, body) VALUES (1, 'one'), (2, 'two')")
        conn.execute("UPDATE notes SET body = body || '!' WHERE id = 1")

    def dies(*_: object) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(stream, "advance", dies)
        with pytest.raises(ConnectionError):
            pair.moves.follow(pair.source, pair.target, going())
    assert pair.rows(1, "SELECT id, body FROM notes ORDER BY id") == [(1, "one!"), (2, "two")]
    assert pair.moves.follow(pair.source, pair.target, going(2)) == 0
    assert cut_over_as(pair, 2).differing == []


def test_a_copy_that_has_come_apart_is_not_handed_over(pair: Pair) -> None:
    with pair.writing() as conn:
        conn.execute("INSERT INTO notes (id, body) VALUES (1, 'one'), (2, 'two')")
    pair.moves.begin(pair.source, pair.target, going())
    pair.moves.copy(pair.source, pair.target, going())
    pair.owner(1, "UPDATE notes SET body = 'other' WHERE id = 2")

    def never() -> None:
        raise AssertionError("it was handed over")

    with pytest.raises(NeedsHuman, match=r"app\.notes"):
        pair.moves.hand_over(pair.source, pair.target, going(), pause=pair.close, cut=never)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("ALTER TABLE notes ADD COLUMN more text", "only in the source: table notes column more"),
        ("SELECT lo_create(4711)", "large objects"),
    ],
)
def test_what_can_not_be_carried_is_refused_before_anything_begins(
    pair: Pair, statement: str, message: str
) -> None:
    pair.owner(0, statement)
    with pytest.raises(NeedsHuman, match=message):
        pair.moves.begin(pair.source, pair.target, going())
    assert pair.rows(0, "SELECT slot_name FROM pg_replication_slots") == []


def test_a_clone_has_every_row_of_one_moment_and_leaves_nothing_at_the_source(pair: Pair) -> None:
    with pair.writing() as conn:
        conn.execute("INSERT INTO kinds (name, mood) VALUES ('k', 'bad')")
        conn.execute("INSERT INTO log VALUES ('no key'), ('no key')")
        conn.execute("INSERT INTO touched (by_trigger) VALUES (1)")
        conn.execute("INSERT INTO items SELECT id, 1 FROM kinds")
    with Writer(pair):
        time.sleep(0.2)
        assert pair.moves.clone(pair.source, pair.target, going(2)).tables == 7
    for query in (
        "SELECT id, name, mood FROM kinds ORDER BY id",
        "SELECT line FROM log ORDER BY line",
        "SELECT * FROM items",
        "SELECT last_value, is_called FROM touched_id_seq",
    ):
        assert pair.rows(1, query) == pair.rows(0, query), query
    assert set(pair.rows(1, "SELECT id FROM notes")) <= {(n,) for n in range(1, 100_000)}
    assert pair.rows(0, "SELECT pubname FROM pg_publication") == []
    with pytest.raises(LeaseLost):
        pair.moves.clone(pair.source, pair.target, going(1))

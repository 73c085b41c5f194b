"""The audit chain: an edited or removed row shows (I11), and nobody waits for it."""

from __future__ import annotations

import threading

import pytest

from controlplane.store import audit
from controlplane.store.registry import Connection, Registry


def write(conn: Connection, n: int) -> None:
    audit.append(
        conn, actor="a", action="tenant.create", resource=f"t-{n}", detail={"n": n, "ü": [1.5, None]}
    )


@pytest.fixture
def written(registry: Registry) -> Registry:
    with registry.connection() as conn:
        for n in range(5):
            write(conn, n)
        assert audit.first_break(conn) is None
        assert [audit.seal(conn, limit=3) for _ in range(3)] == [3, 2, 0]
        assert audit.first_break(conn) is None
    return registry


def test_an_edited_row_is_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute("UPDATE audit SET actor = 'b' WHERE place = 3")
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(3, "row 3 was changed")


def test_a_removed_row_is_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute("DELETE FROM audit WHERE place = 2")
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(2, "row 2 is missing")


def test_a_row_slipped_in_is_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute(
            "INSERT INTO audit (at, actor, action, resource, detail, place, hash)"
            " SELECT at, actor, action, resource, detail, 6, hash FROM audit WHERE place = 5"
        )
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(6, "row 6 was changed")


def test_rows_that_changed_places_are_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute("UPDATE audit SET place = -place WHERE place IN (2, 3)")
        conn.execute("UPDATE audit SET place = 5 + place WHERE place < 0")
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(2, "row 2 was changed")


def test_whoever_writes_waits_for_no_other_and_what_is_committed_late_is_sealed_late(
    written: Registry,
) -> None:
    with written.connection() as slow, written.connection() as conn:
        with slow.transaction():
            write(slow, 5)
            write(conn, 6)
            assert audit.seal(conn, limit=10) == 1
        assert audit.seal(conn, limit=10) == 1
        assert audit.first_break(conn) is None
        rows = conn.execute("SELECT resource FROM audit ORDER BY place").fetchall()
    assert [row["resource"] for row in rows[5:]] == ["t-6", "t-5"]


def test_several_that_seal_at_once_make_one_chain(written: Registry) -> None:
    with written.connection() as conn:
        for n in range(200):
            write(conn, n)

    def seal() -> None:
        with written.connection() as conn:
            for _ in range(20):
                audit.seal(conn, limit=10)

    threads = [threading.Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with written.connection() as conn:
        while audit.seal(conn, limit=10):
            pass
        assert audit.first_break(conn) is None
        [row] = conn.execute("SELECT count(*) AS n, max(place) AS last FROM audit").fetchall()
    assert (row["n"], row["last"]) == (205, 205)

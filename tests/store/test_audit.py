"""The audit chain: an edited or removed row shows (I11)."""

from __future__ import annotations

import pytest

from controlplane.store import audit
from controlplane.store.registry import Registry


@pytest.fixture
def written(registry: Registry) -> Registry:
    with registry.connection() as conn:
        for n in range(5):
            with conn.transaction():
                audit.append(
                    conn,
                    actor="a",
                    action="tenant.create",
                    resource=f"t-{n}",
                    detail={"n": n, "ü": [1.5, None]},
                )
        assert audit.first_break(conn) is None
    return registry


def test_an_edited_row_is_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute("UPDATE audit SET actor = 'b' WHERE seq = 3")
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(3, "row 3 was changed")


def test_a_removed_row_is_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute("DELETE FROM audit WHERE seq = 2")
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(2, "row 2 is missing")


def test_a_row_slipped_in_is_found(written: Registry) -> None:
    with written.connection() as conn:
        conn.execute(
            "INSERT INTO audit SELECT 6, at, actor, action, resource, detail, hash FROM audit WHERE seq = 5"
        )
        broken = audit.first_break(conn)
    assert broken == audit.ChainBreak(6, "row 6 was changed")

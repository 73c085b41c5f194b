"""When the workers last began each of their periodic duties."""

from __future__ import annotations

from controlplane.store.registry import Connection


def begin(conn: Connection, name: str, *, interval: float) -> bool:
    """True where nobody in the whole fleet has begun it within `interval` seconds: it is the caller's now."""
    return (
        conn.execute(
            "INSERT INTO duty (name) VALUES (%s)"
            " ON CONFLICT (name) DO UPDATE SET begun_at = clock_timestamp()"
            "  WHERE duty.begun_at <= clock_timestamp() - make_interval(secs => %s)",
            [name, interval],
        ).rowcount
        > 0
    )

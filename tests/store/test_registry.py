"""The way to the registry: nobody who has fallen silent holds up the others."""

from __future__ import annotations

import threading

import pytest

from controlplane.store import registry as module
from controlplane.store.registry import Registry, RegistryUnavailable


def test_a_transaction_that_falls_silent_loses_its_locks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a process which was stopped in the middle of it."""
    monkeypatch.setattr(module, "SILENT_AT_MOST", 0.5)
    with Registry(database_url) as one, Registry(database_url) as other:
        held, ended = threading.Event(), threading.Event()
        lost: list[RegistryUnavailable] = []

        def hold() -> None:
            try:
                with one.connection() as conn, conn.transaction():
                    conn.execute("SELECT pg_advisory_xact_lock(1)")
                    held.set()
                    ended.wait(60)
                    conn.execute("SELECT 1")
            except RegistryUnavailable as error:
                lost.append(error)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(30)
        with other.connection() as conn, conn.transaction():
            conn.execute("SELECT pg_advisory_xact_lock(1)")
        ended.set()
        thread.join(30)
    assert len(lost) == 1

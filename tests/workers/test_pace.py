"""At most once in so many seconds."""

from __future__ import annotations

from workers.pace import Pace


def test_once_in_its_seconds() -> None:
    now = [100.0]
    pace = Pace(2.0, clock=lambda: now[0])
    assert [pace.allows(), pace.allows()] == [True, False]
    now[0] += 1.9
    assert not pace.allows()
    now[0] += 0.1
    assert [pace.allows(), pace.allows()] == [True, False]

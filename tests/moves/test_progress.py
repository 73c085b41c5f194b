"""Which transactions a copy holds, also where their numbers begin anew."""

from __future__ import annotations

import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.moves.pgoutput import decode
from controlplane.workers.providers.moves.progress import Snapshot
from controlplane.workers.providers.moves.stream import lsn_text

ROUND = 2**32


@pytest.mark.parametrize("base", [0, 5 * ROUND, 5 * ROUND - 105], ids=["first", "sixth", "across"])
def test_a_snapshot_sees_what_had_ended(base: int) -> None:
    snapshot = Snapshot(f"{base + 100}:{base + 110}:{base + 100},{base + 105}")
    seen = [n for n in range(95, 115) if snapshot.sees((base + n) % ROUND)]
    assert seen == [95, 96, 97, 98, 99, 101, 102, 103, 104, 106, 107, 108, 109]


def test_a_snapshot_without_running_transactions() -> None:
    assert [Snapshot("7:7:").sees(n) for n in (6, 7, 8)] == [True, False, False]


def test_a_message_of_another_protocol_is_a_persons_case() -> None:
    with pytest.raises(NeedsHuman, match="'S'"):
        decode(b"S\0\0\0\1\1")


def test_a_position_is_written_as_postgresql_does() -> None:
    assert lsn_text(0x1_0000_00AB) == "1/AB"

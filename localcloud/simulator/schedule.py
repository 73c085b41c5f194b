"""When each event is delivered, if at all. The same arguments give the same schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.localcloud.simulator.stream import Moment


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong on the way. `shuffle`: an event is overtaken by those of up to so many changes
    after it. The others are probabilities: that an event comes twice, that it comes when much has
    happened since, that it never comes; `crash`: that a worker dies at a crash point, of which each
    outside call has two."""

    shuffle: int = 20
    duplicate: float = 0.1
    late: float = 0.05
    drop: float = 0.02
    crash: float = 0.01


NONE = Trouble(0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`deliveries`: (the change after which it comes, the event), in order. The other three are ids."""

    deliveries: tuple[tuple[int, dict[str, Any]], ...]
    doubled: frozenset[str]
    late: frozenset[str]
    dropped: frozenset[str]


def schedule(moments: Sequence[Moment], trouble: Trouble, rng: random.Random) -> Schedule:
    planned: list[tuple[float, int, dict[str, Any]]] = []
    doubled, late, dropped = set(), set(), set()
    for place, event in ((n, moment.event) for n, moment in enumerate(moments) if moment.event):
        if rng.random() < trouble.drop:
            dropped.add(event["id"])
            continue
        at = place + rng.random() * trouble.shuffle
        if rng.random() < trouble.late:
            late.add(event["id"])
            at += rng.uniform(0.25, 1.0) * len(moments)
        planned.append((at, len(planned), event))
        if rng.random() < trouble.duplicate:
            doubled.add(event["id"])
            planned.append((at + rng.random() * (trouble.shuffle + 1), len(planned), event))
    planned.sort(key=lambda delivery: delivery[:2])
    deliveries = tuple((int(at), event) for at, _, event in planned)
    return Schedule(deliveries, frozenset(doubled), frozenset(late), frozenset(dropped))

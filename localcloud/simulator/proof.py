"""Plays the stories of customers in a box, with every trouble, and asks the oracle what is wrong.

It is asked at the end, where the comparison with Stripe has found what was lost, and at a few moments in
between, where the workers have done all that they have heard of. There a customer counts that an event has
told of since it last did something: its contracts are fetched as they are now, whichever event it was.
Customers write a row wherever a page takes one, so each row is a promise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.domain.catalogue import parse_catalogue
from controlplane.localcloud.simulator.box import ZONE, Box, RunReport, Watch
from controlplane.localcloud.simulator.oracle import Oracle
from controlplane.localcloud.simulator.schedule import Trouble
from controlplane.localcloud.simulator.stories import CATALOGUE, GRACE, STORIES, Chapter, tell
from controlplane.localcloud.simulator.visitor import Visitor

TROUBLE = Trouble(shuffle=20, duplicate=0.2, late=0.1, drop=0.1, crash=0.01)
CUSTOMERS = 8
RESTS = 3
"""In between, on average."""
VISITS = 0.5
"""The share of a customer's changes before which it is seen at its page."""


@dataclass(frozen=True, slots=True)
class Proved:
    """`stories`: by the number of the customer. `rests`: how often the oracle was asked. `rows`: that pages
    took. `deleted`: places whose data went when nothing was ordered for them any more. `wrong`: in words,
    each with the change before which it was first seen; empty is the proof."""

    seed: int
    stories: tuple[str, ...]
    report: RunReport
    rests: int
    rows: int
    deleted: int
    wrong: tuple[str, ...]


def prove(
    registry_url: str,
    folder: Path,
    *,
    seed: int,
    stories: Sequence[str] = (),
    trouble: Trouble = TROUBLE,
) -> Proved:
    """`registry_url`: an empty registry, its schema up to date. `folder`: for the application's migration.
    `stories`: by name, where they are not to be drawn."""
    rng = random.Random(seed)
    names = tuple(stories) or tuple(rng.choices(tuple(STORIES), k=CUSTOMERS))
    now = int(time.time())
    chapters = tell(names, seed=rng.getrandbits(64), zone=ZONE, now=now)
    catalogue = parse_catalogue(CATALOGUE, source="stories")
    with Box(registry_url, folder, catalogue, livemode=False, name=f"seed-{seed}") as box:
        witness = _Witness(box, chapters, rng)
        report = box.play([chapter.moment for chapter in chapters], trouble, seed=seed, watch=witness)
    wrong = tuple(f"before change {place}: {what}" for what, place in witness.wrong.items())
    return Proved(seed, names, report, witness.asked, witness.rows, witness.oracle.deleted, wrong)


class _Witness(Watch):
    def __init__(self, box: Box, chapters: Sequence[Chapter], rng: random.Random) -> None:
        self.oracle = Oracle(GRACE)
        self.wrong: dict[str, int] = {}
        self.asked = self.rows = 0
        self._rng, self._chapters, self._visitor = rng, chapters, Visitor(box)
        self._place = 0
        self._unheard: set[str] = set()
        self._customers = {
            chapter.moment.event["id"]: chapter.customer for chapter in chapters if chapter.moment.event
        }

    def rests(self, place: int) -> bool | None:
        self._place = place
        if self._chapters[place].settled:
            return True
        rest = self._rng.random() < RESTS / len(self._chapters)
        return self._rng.random() < 0.5 if rest else None

    def changes(self, place: int) -> None:
        chapter = self._chapters[place]
        self._say(self.oracle.deletions(self._visitor.deletions()))
        if self._rng.random() < VISITS:
            self._visit(chapter.customer)
        for deed in chapter.deeds:
            self.oracle.did(deed)
        if chapter.moment.objects:
            self._unheard.add(chapter.customer)
        if chapter.demands is not None:
            self._visitor.demand_deletion(self.oracle.hosts()[chapter.demands])

    def delivered(self, event: dict[str, Any]) -> None:
        self._unheard.discard(self._customers[event["id"]])

    def finished(self, *, compared: bool) -> None:
        self.asked += 1
        if compared:
            self._unheard.clear()
        found = self._visitor.deletions()
        self._say(self.oracle.deletions(found))
        self.oracle.told(self._visitor.told())
        known = {chapter.customer for chapter in self._chapters} - self._unheard
        judged = None if compared else known
        self._say(self.oracle.judge(self._visitor.page, found, now=time.time(), of=judged))
        for customer in sorted(known):
            self._visit(customer)

    def _visit(self, customer: str) -> None:
        """The customer writes a row at each of its places."""
        for home, host in self.oracle.hosts_of(customer).items():
            row = f"{home}/{self.rows}"
            if self._visitor.write(host, row):
                self.oracle.wrote(home, row)
                self.rows += 1

    def _say(self, wrong: Sequence[str]) -> None:
        for what in wrong:
            self.wrong.setdefault(what, self._place)

"""Reads all the systems, compares them, and tries what must be refused: what `controlplane verify` does."""

from __future__ import annotations

import time
from dataclasses import dataclass

from controlplane.domain.drift import compare
from controlplane.domain.finding import Finding
from controlplane.workers.drift.isolation_probe import probe
from controlplane.workers.drift.report import Reader
from controlplane.workers.engine.context import Context


@dataclass(frozen=True, slots=True)
class Report:
    """`unread`: systems that could not be read; `untried`: what could not be tried; `not_asked`: clusters
    that were not woken for it; all with the reason. `tried`: connects and simulations of the isolation
    probe."""

    findings: tuple[Finding, ...]
    unread: tuple[str, ...]
    not_asked: tuple[str, ...]
    tried: int
    untried: tuple[str, ...]
    seconds: float

    @property
    def monthly_usd(self) -> float:
        return round(sum(finding.monthly_usd or 0.0 for finding in self.findings), 2)

    def confirmed_by(self, later: Report) -> list[Finding]:
        """What both looks have found, as the later one has it."""
        before = {finding.key for finding in self.findings}
        return [finding for finding in later.findings if finding.key in before]


def verify(ctx: Context, *, tenant_id: str | None = None, probes: int = 20, wake: bool = False) -> Report:
    """`probes`: tenants whose login and role are tried on what is others'; 0 for none."""
    started = time.monotonic()
    read = Reader(ctx, wake=wake).read()
    found = compare(read.systems, tenant_id=tenant_id)
    probed = probe(ctx, read.systems, tenants=probes, tenant_id=tenant_id)
    return Report(
        findings=(*probed.breaches, *found),
        unread=read.unread,
        not_asked=read.not_asked,
        tried=probed.tried,
        untried=tuple(probed.untried),
        seconds=round(time.monotonic() - started, 3),
    )

"""`controlplane verify`: run it where a worker runs, with a worker's environment."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli import options, show
from controlplane.cli.failure import Failure, Unreachable, clear_errors
from controlplane.domain.finding import Finding
from controlplane.services import tenants

if TYPE_CHECKING:
    from controlplane.workers.drift.verify import Report


@click.command("verify")
@click.option("--tenant", help="Only what is about this tenant (id or slug).")
@click.option(
    "--probes",
    type=click.IntRange(0, 10_000),
    default=20,
    show_default=True,
    help="Tenants, drawn by chance, whose login and role are tried on what is others'.",
)
@click.option(
    "--wake",
    is_flag=True,
    help="Ask clusters too to which nobody is connected, which starts those that are paused.",
)
@click.option("--repair", is_flag=True, help="Compare again after a while and repair what both reports name.")
@click.option(
    "--grace",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="Seconds between the two reports of --repair.",
)
@options.as_json
def command(
    *, tenant: str | None, probes: int, wake: bool, repair: bool, grace: float, as_json: bool
) -> None:
    """Compare the registry with every external system: what is missing, orphaned or open.

    Fails (1) where something was found, repaired or not, and with 3 where nothing was but a system could
    not be asked.
    """
    from controlplane.workers.drift.repairs import repair as repair_all
    from controlplane.workers.drift.verify import verify
    from controlplane.workers.runtime.wiring import context_from_environment

    with clear_errors():
        ctx = context_from_environment()
        try:
            with ctx.registry.connection() as conn:
                tenant_id = None if tenant is None else tenants.resolve(conn, tenant).id
            report = verify(ctx, tenant_id=tenant_id, probes=probes, wake=wake)
            repaired: list[tuple[Finding, str]] = []
            if repair and any(finding.repair for finding in report.findings):
                time.sleep(grace)
                later = verify(ctx, tenant_id=tenant_id, probes=0, wake=wake)
                repaired = repair_all(ctx, report.confirmed_by(later))
        finally:
            ctx.registry.close()
    if as_json:
        show.as_json(_document(report, repaired))
    else:
        _print(report, repaired)
    if report.findings:
        raise Failure(f"{len(report.findings)} findings")
    if report.unread:
        raise Unreachable("nothing found, but not everything could be read")


def _document(report: Report, repaired: list[tuple[Finding, str]]) -> dict[str, Any]:
    return {
        "ok": not report.findings and not report.unread,
        "findings": [asdict(finding) for finding in report.findings],
        "estimated_monthly_usd": report.monthly_usd,
        "unread": list(report.unread),
        "not_asked": list(report.not_asked),
        "isolation_probe": {"tried": report.tried, "untried": list(report.untried)},
        "repairs": [
            {
                "system": found.system,
                "kind": found.kind,
                "name": found.name,
                "repair": found.repair,
                "outcome": what,
            }
            for found, what in repaired
        ],
        "seconds": report.seconds,
    }


def _print(report: Report, repaired: list[tuple[Finding, str]]) -> None:
    show.table(
        ["SYSTEM", "FAULT", "WHAT", "NAME", "OF", "DETAIL", "$/MONTH"],
        [
            (
                found.system,
                found.fault,
                found.kind,
                found.name,
                found.owner,
                found.detail,
                None if found.monthly_usd is None else f"{found.monthly_usd:.2f}",
            )
            for found in report.findings
        ],
        none="nothing found: the systems agree"
        if not report.not_asked
        else "nothing found: what was asked agrees",
    )
    if report.monthly_usd:
        show.line(f"about {report.monthly_usd:.2f} USD a month (an estimate, see docs/verify.md)")
    for line in (*report.unread, *report.untried):
        show.line(f"not looked at: {line}")
    for line in report.not_asked:
        show.line(f"not asked: {line} (--wake asks all the same)")
    show.line(f"tried {report.tried} times what must be refused; {report.seconds:.1f} s")
    for found, what in repaired:
        show.line(f"{found.repair} {found.target or found.name}: {what}")

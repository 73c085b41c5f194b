"""Steps of a tenant's custom domains. None of them is ever in the tenant's way."""

from __future__ import annotations

from dataclasses import asdict

from controlplane.domain.errors import NeedsHuman, Refused
from controlplane.domain.steps import StepName
from controlplane.store import hostname
from workers.engine.step_context import TenantWork
from workers.providers.ports import HostnameSeen
from workers.steps.registry import tenant_step


@tenant_step(StepName.REGISTER_HOSTNAME)
def register_hostname(work: TenantWork) -> None:
    host = work.step.target
    with work.recording() as conn:
        owner = hostname.want(conn, host, work.facts.row.id)
    if owner != work.facts.row.id:
        raise NeedsHuman(f"custom domain {host} belongs to another tenant", runbook="hostname-conflict")
    try:
        seen = work.ctx.providers.hostnames.create(host, work.facts.row.id)
    except Refused as error:
        with work.recording() as conn:
            hostname.refuse(conn, host, reason=str(error))
        return
    _hostname_seen(work, seen)


@tenant_step(StepName.POLL_HOSTNAME)
def poll_hostname(work: TenantWork) -> None:
    seen = work.ctx.providers.hostnames.find(work.step.target)
    if seen is None:
        seen = work.ctx.providers.hostnames.create(work.step.target, work.facts.row.id)
    _hostname_seen(work, seen)


@tenant_step(StepName.REMOVE_HOSTNAME)
def remove_hostname(work: TenantWork) -> None:
    host = work.step.target
    seen = work.ctx.providers.hostnames.find(host)
    if seen is not None and seen.tenant_id == work.facts.row.id:
        work.ctx.providers.hostnames.delete(seen.id)
    with work.recording() as conn:
        hostname.remove(conn, host)


def _hostname_seen(work: TenantWork, seen: HostnameSeen) -> None:
    with work.recording() as conn:
        hostname.seen(
            conn,
            seen.host,
            provider_id=seen.id,
            status=seen.status,
            ssl_status=seen.ssl_status,
            records=[asdict(record) for record in seen.records],
            errors=list(seen.errors),
            poll_after=work.ctx.platform.hostname_poll,
        )

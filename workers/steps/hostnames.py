"""Steps of a tenant's custom domains. None of them is ever in the tenant's way."""

from __future__ import annotations

from dataclasses import asdict

from controlplane.domain.errors import NeedsHuman, Refused
from controlplane.domain.steps import StepName
from controlplane.store import hostname
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import HostnameDescription
from controlplane.workers.steps.registry import tenant_step


@tenant_step(
    StepName.REGISTER_HOSTNAME,
    "the custom domain at Cloudflare; never in the tenant's way",
    again="adopted where it is ours",
    touches=(),
)
def register_hostname(work: TenantWork) -> None:
    host = work.step.target
    with work.recording() as conn:
        owner = hostname.want(conn, host, work.record.row.id)
    if owner != work.record.row.id:
        raise NeedsHuman(f"custom domain {host} belongs to another tenant", runbook="hostname-conflict")
    try:
        found = work.ctx.providers.hostnames.create(host, work.record.row.id)
    except Refused as error:
        with work.recording() as conn:
            hostname.refuse(conn, host, reason=str(error))
        return
    _record_hostname(work, found)


@tenant_step(
    StepName.POLL_HOSTNAME,
    "asks Cloudflare how far the domain's certificate is",
    again="reading",
    touches=(),
)
def poll_hostname(work: TenantWork) -> None:
    found = work.ctx.providers.hostnames.find(work.step.target)
    if found is None:
        found = work.ctx.providers.hostnames.create(work.step.target, work.record.row.id)
    _record_hostname(work, found)


@tenant_step(
    StepName.REMOVE_HOSTNAME,
    "takes a custom domain back from Cloudflare, where it is ours",
    again="gone already is success",
    touches=(),
)
def remove_hostname(work: TenantWork) -> None:
    host = work.step.target
    found = work.ctx.providers.hostnames.find(host)
    if found is not None and found.tenant_id == work.record.row.id:
        work.ctx.providers.hostnames.delete(found.id)
    with work.recording() as conn:
        hostname.remove(conn, host)


def _record_hostname(work: TenantWork, found: HostnameDescription) -> None:
    with work.recording() as conn:
        hostname.record(
            conn,
            found.host,
            provider_id=found.id,
            status=found.status,
            ssl_status=found.ssl_status,
            records=[asdict(record) for record in found.records],
            errors=list(found.errors),
            poll_after=work.ctx.platform.hostname_poll,
        )

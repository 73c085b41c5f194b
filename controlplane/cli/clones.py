"""`controlplane tenants clone` and `close`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, in_path
from controlplane.cli.requested import requested


@click.command()
@click.argument("tenant")
@click.option("--slug", required=True, help="The clone's own; it answers at this name of the zone.")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, or why it can't be; change nothing.")
@click.option("--wait", is_flag=True, help="Watch the operation; its outcome is the exit status.")
@options.timeout(6 * 3600)
@options.as_json
def clone(
    *, tenant: str, slug: str, reason: str, dry_run: bool, wait: bool, timeout: float, as_json: bool
) -> None:
    """Make a tenant of your own with its rows, for support or staging. It holds a customer's data."""
    if dry_run and wait:
        raise click.UsageError("--dry-run changes nothing: there is nothing to wait for")
    api = Api.from_environment()
    answer = api.post(
        f"/v1/tenants/{in_path('tenant', tenant)}/clone", {"slug": slug, "reason": reason, "dry_run": dry_run}
    )
    if dry_run:
        _planned(answer["clone"], as_json=as_json)
    else:
        requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)


def _planned(planned: dict[str, str | None], *, as_json: bool) -> None:
    if as_json:
        show.as_json(planned)
    else:
        show.pairs(planned.items())


@click.command()
@click.argument("tenant")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--wait", is_flag=True, help="Watch the operation; its outcome is the exit status.")
@options.timeout(600)
@options.as_json
def close(*, tenant: str, reason: str, wait: bool, timeout: float, as_json: bool) -> None:
    """End a clone. A customer's tenant closes with its subscription."""
    api = Api.from_environment()
    answer = api.post(f"/v1/tenants/{in_path('tenant', tenant)}/close", {"reason": reason})
    requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)

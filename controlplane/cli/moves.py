"""`controlplane tenants move`"""

from __future__ import annotations

import click

from controlplane.cli import options
from controlplane.cli.api import Api, in_path
from controlplane.cli.requested import preview, requested


@click.command("move")
@click.argument("tenant")
@click.option("--to", metavar="dedicated|shared|CLUSTER", help="Where it shall live.")
@click.option("--confirm", is_flag=True, help="The move is good: delete what is left at the source.")
@click.option("--give-up", is_flag=True, help="Stay at the source; not once the target is in use.")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--dry-run", is_flag=True, help="Show what --to would do; change nothing.")
@click.option("--wait", is_flag=True, help="Watch the operation; its outcome is the exit status.")
@options.timeout(6 * 3600)
@options.as_json
def command(
    *,
    tenant: str,
    to: str | None,
    confirm: bool,
    give_up: bool,
    reason: str,
    dry_run: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Move it to another cluster while it is used; then confirm, or give up on the way."""
    if [to is not None, confirm, give_up].count(True) != 1:
        raise click.UsageError("one of --to, --confirm and --give-up is needed")
    if dry_run and (to is None or wait):
        raise click.UsageError("--dry-run goes with --to alone")
    api, path = Api.from_environment(), f"/v1/tenants/{in_path('tenant', tenant)}/move"
    if dry_run:
        answer = api.post(path, {"to": to, "reason": reason, "dry_run": True})
        preview(api, answer["preview"]["id"], timeout=timeout, as_json=as_json)
        return
    if to is not None:
        answer = api.post(path, {"to": to, "reason": reason})
    else:
        answer = api.post(f"{path}/{'confirm' if confirm else 'give-up'}", {"reason": reason})
    requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)

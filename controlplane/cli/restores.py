"""`controlplane tenants restore`"""

from __future__ import annotations

import click

from controlplane.cli import options
from controlplane.cli.api import Api, in_path
from controlplane.cli.requested import preview, requested


@click.command("restore")
@click.argument("tenant")
@click.option("--at", metavar="MOMENT", help="As it was then, such as 2026-11-24T10:00:00Z.")
@click.option("--snapshot", metavar="NAME", help="As a snapshot of its cluster holds it.")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--dry-run", is_flag=True, help="Show what it would do, or why it can't be; change nothing.")
@click.option("--wait", is_flag=True, help="Watch the operation; its outcome is the exit status.")
@options.timeout(12 * 3600)
@options.as_json
def command(
    *,
    tenant: str,
    at: str | None,
    snapshot: str | None,
    reason: str,
    dry_run: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Give it the rows of an earlier time. What it has now is kept, closed, for seven days or until
    `move --confirm`."""
    if (at is None) == (snapshot is None):
        raise click.UsageError("one of --at and --snapshot is needed")
    if dry_run and wait:
        raise click.UsageError("--dry-run waits by itself: leave --wait out")
    wish = {"at": at} if at is not None else {"snapshot": snapshot}
    api = Api.from_environment()
    path = f"/v1/tenants/{in_path('tenant', tenant)}/restore"
    answer = api.post(path, {**wish, "reason": reason, "dry_run": dry_run})
    if dry_run:
        preview(api, answer["preview"]["id"], timeout=timeout, as_json=as_json)
    else:
        requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)

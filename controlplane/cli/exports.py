"""`controlplane tenants export`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Failure
from controlplane.cli.watching import await_end


@click.command()
@click.argument("tenant")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option(
    "--keep-days",
    type=click.IntRange(1, 365),
    default=7,
    show_default=True,
    help="Then it is deleted from the bucket.",
)
@click.option("--wait", is_flag=True, help="Until it is there; whether it is the exit status.")
@options.timeout(3600)
@options.as_json
def export(*, tenant: str, reason: str, keep_days: int, wait: bool, timeout: float, as_json: bool) -> None:
    """A standard dump (pg_dump's custom format) of its data into the bucket for copies, with checksums."""
    api = Api.from_environment()
    path = f"/v1/tenants/{in_path('tenant', tenant)}/export"
    made = api.post(path, {"reason": reason, "keep_days": keep_days})["export"]
    if wait:
        made = await_end(
            api,
            f"/v1/exports/{made['id']}",
            busy=("making",),
            timeout=timeout,
            late=lambda seen: f"export {seen['id']} is not made after {timeout:g} s",
        )
    if as_json:
        show.as_json(made)
    else:
        _print(made)
    if made["state"] == "failed":
        raise Failure(f"export {made['id']}: {made['error']}")


def _print(found: Json) -> None:
    tables = found["tables"] or {}
    show.pairs(
        [
            ("export", found["id"]),
            ("state", found["state"]),
            ("object", found["name"]),
            ("SHA-256", found["sha256"]),
            ("bytes", found["size"]),
            ("rows", ", ".join(f"{name} {rows}" for name, rows in tables.items())),
            ("kept until", found["kept_until"] and show.moment(found["kept_until"])),
        ]
    )

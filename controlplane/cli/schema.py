"""`controlplane schema`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api
from controlplane.cli.failure import Failure


@click.group("schema")
def command() -> None:
    """The tenants' schemas: diff."""


@command.command()
@options.as_json
def diff(*, as_json: bool) -> None:
    """Which tenants of a release differ from most of it, and how. As last observed: `tenants reprovision`
    looks again. The exit status is 1 where any does."""
    groups = Api.from_environment().get("/v1/schema")["items"]
    drifted = [group for group in groups if group["missing"] or group["extra"]]
    if as_json:
        show.as_json(groups)
    else:
        show.table(
            ["RELEASE", "SHAPE", "TENANTS", "MISSING", "EXTRA", "SEEN", "FOR EXAMPLE"],
            [
                (
                    group["release"],
                    group["digest"][:12],
                    group["tenants"],
                    len(group["missing"]),
                    len(group["extra"]),
                    show.moment(group["seen_at"]),
                    ", ".join(group["examples"]),
                )
                for group in groups
            ],
            none="no schema has been observed yet",
        )
        for group in drifted:
            show.line()
            show.line(f"{', '.join(group['examples'])} against most of release {group['release']}:")
            for sign, name in (("-", "missing"), ("+", "extra")):
                for text in group[name]:
                    show.line(f"  {sign} {text}")
    if drifted:
        raise Failure(f"{sum(group['tenants'] for group in drifted)} tenants differ from their release")

"""`controlplane pool`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json


@click.group("pool")
def command() -> None:
    """The warm pool: show."""


@command.command("show")
@options.as_json
def show_(*, as_json: bool) -> None:
    """Free slots kept ahead of demand, by plan, and what holds more of them back."""
    found = Api.from_environment().get("/v1/pool")
    if as_json:
        show.as_json(found)
        return
    if found["looked_at"] is None:
        show.line("no worker has looked at the pool yet")
        return
    columns = ["PLANS", "ISOLATION", "ACU", "ASKED FOR", "FREE", "MAKING", "USED", "CLUSTERS", "HELD BACK"]
    show.table(columns, [_fit(fit) for fit in found["fits"]], none="no plans")
    limits, left = found["limits"], found["quota_left"]["clusters"]
    idle = limits["max_idle_acu_hours_per_day"]
    show.line()
    show.pairs(
        [
            ("clusters", f"{found['clusters']}, none is made ahead from {limits['max_clusters']} on"),
            ("without a plan", _without_plan(found["without_plan"])),
            (
                "idle",
                f"{found['idle_acu_hours_per_day']:g} ACU hours a day"
                + ("" if idle is None else f" of at most {idle:g}"),
            ),
            ("quota", None if left is None else f"{left} more, {limits['reserve_clusters']} kept"),
            ("looked at", show.moment(found["looked_at"])),
        ]
    )


def _fit(fit: Json) -> list[object]:
    held = fit["held_back"]
    return [
        ", ".join(fit["plans"]),
        fit["isolation"],
        f"{fit['min_acu']:g} to {fit['max_acu']:g}",
        fit["warm_slots"],
        fit["free"],
        fit["making"],
        fit["used"],
        fit["clusters"],
        None if held is None else f"{held['clusters']} clusters: {held['reason']}",
    ]


def _without_plan(fits: list[Json]) -> str | None:
    return f"{sum(fit['clusters'] for fit in fits)} clusters" if fits else None

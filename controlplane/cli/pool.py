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
    if found["observed_at"] is None:
        show.line("no worker has looked at the pool yet")
        return
    columns = ["PLANS", "ISOLATION", "ACU", "ASKED FOR", "FREE", "MAKING", "USED", "CLUSTERS", "HELD BACK"]
    show.table(columns, [_class(cluster_class) for cluster_class in found["classes"]], none="no plans")
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
            ("looked at", show.moment(found["observed_at"])),
        ]
    )


def _class(cluster_class: Json) -> list[object]:
    held = cluster_class["held_back"]
    return [
        ", ".join(cluster_class["plans"]),
        cluster_class["isolation"],
        f"{cluster_class['min_acu']:g} to {cluster_class['max_acu']:g}",
        cluster_class["warm_slots"],
        cluster_class["free"],
        cluster_class["making"],
        cluster_class["used"],
        cluster_class["clusters"],
        None if held is None else f"{held['clusters']} clusters: {held['reason']}",
    ]


def _without_plan(classes: list[Json]) -> str | None:
    return f"{sum(cluster_class['clusters'] for cluster_class in classes)} clusters" if classes else None

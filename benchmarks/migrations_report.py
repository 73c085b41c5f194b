"""What the benchmark of migrations measured, as a table with its goals, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GOAL_FLOOR, GOAL_PSQL = 0.8, 3.0


@dataclass(frozen=True)
class Size:
    """Seconds for so many databases. `memory`: MB that the rollout added to this process at its peak."""

    tenants: int
    seconds: dict[str, float]
    memory: float


def _names(size: Size) -> list[str]:
    """The floor, ours, and then the peers in the order in which they ran."""
    return sorted(size.seconds, key=lambda name: (name != "floor", name != "rollout"))


def report(
    sizes: Sequence[Size], peer: tuple[int, float, float] | None, *, threads: int, stamp: str
) -> tuple[str, list[str]]:
    """(Markdown, goals that were missed)."""
    last = sizes[-1]
    lines = ["## Migrations: 3 for each database", ""]
    lines += ["| | " + " | ".join(f"{size.tenants:,} databases" for size in sizes) + " | of the floor |"]
    lines += ["| --- |" + " ---: |" * (len(sizes) + 1)]
    for name in _names(last):
        rates = [f"{size.tenants / size.seconds[name]:.1f}/s ({size.seconds[name]:.0f} s)" for size in sizes]
        share = last.seconds["floor"] / last.seconds[name]
        label = {"floor": f"floor: psycopg, {threads} threads", "rollout": f"**rollout, {threads} threads**"}
        lines.append(f"| {label.get(name, name)} | " + " | ".join(rates) + f" | {share:.0%} |")
    if peer is not None:
        tenants, one, many = peer
        lines += ["", f"django-tenants, {tenants} *schemas* of one database (no connect, no database each):"]
        lines += [f"{tenants / one:.1f}/s one after the other, {tenants / many:.1f}/s by processes."]
    of_floor = last.seconds["floor"] / last.seconds["rollout"]
    of_psql = last.seconds["psql, a loop"] / last.seconds["rollout"]
    each = {
        name: ", ".join(f"{1000 * size.seconds[name] / size.tenants:.1f}" for size in sizes)
        for name in ("rollout", "floor")
    }
    above = [size.seconds["rollout"] / size.seconds["floor"] for size in sizes]
    memory = [size.memory for size in sizes]
    goals = [
        (f"rollout ÷ floor, {last.tenants:,} databases", f"{of_floor:.0%}", f"≥ {GOAL_FLOOR:.0%}",
         of_floor >= GOAL_FLOOR),
        (f"rollout ÷ psql loop, {last.tenants:,} databases", f"{of_psql:.1f} ×", f"≥ {GOAL_PSQL:g} ×",
         of_psql >= GOAL_PSQL),
        ("time ÷ floor's time, by size: what grows is the floor's", ", ".join(f"{x:.2f}" for x in above),
         "within 1.5 × of each other", max(above) / min(above) <= 1.5),
        ("MB added to the process, by size", ", ".join(f"{value:.0f}" for value in memory),
         "at most 40, whatever the size", max(memory) <= 40),
    ]  # fmt: skip
    lines += ["", f"Milliseconds for a database, by size: rollout {each['rollout']}; floor {each['floor']}."]
    lines += ["", "| goal | measured | wanted | met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {goal} | {value} | {wanted} | {'yes' if met else '**no**'} |"
        for goal, value, wanted, met in goals
    ]
    lines += [
        "",
        f"{stamp} fsync off; registry, tenants and contenders on one machine. Floor and rollout are the"
        " medians of four runs each that took turns. Read the ratios.",
        "",
    ]
    return "\n".join(lines), [
        f"{goal}: {value}, wanted {wanted}" for goal, value, wanted, met in goals if not met
    ]


def draw(sizes: Sequence[Size], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "migrations"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4))
    for name in _names(sizes[-1]):
        ours = name == "rollout"
        axes.plot(
            [size.tenants for size in sizes],
            [size.seconds[name] for size in sizes],
            marker="o",
            label=name,
            linewidth=2.5 if ours else 1.2,
            color="#1f5fbf" if ours else None,
        )
    axes.set_xlabel("databases, 3 migrations each")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)

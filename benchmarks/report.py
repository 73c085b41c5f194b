"""What a benchmark hands back: figures with what they are held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """`goal` as words, `met` None where nothing was promised."""

    section: str
    name: str
    value: str
    goal: str = ""
    met: bool | None = None


@dataclass
class Bar:
    """One bar of the picture. `micros`: microseconds."""

    name: str
    micros: float
    ours: bool = False


@dataclass
class Report:
    title: str
    figures: list[Figure] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, section: str, name: str, value: str, goal: str = "", met: bool | None = None) -> None:
        self.figures.append(Figure(section, name, value, goal, met))

    @property
    def failed(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.met is False]

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        for section in dict.fromkeys(figure.section for figure in self.figures):
            lines += [f"### {section}", "", "| figure | measured | goal | met |", "| --- | --- | --- | --- |"]
            for figure in self.figures:
                if figure.section == section:
                    met = {True: "yes", False: "**no**", None: ""}[figure.met]
                    lines.append(f"| {figure.name} | {figure.value} | {figure.goal} | {met} |")
            lines.append("")
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), ""])

    def draw(self, path: Path) -> None:
        """What a request pays for its tenant, on a logarithmic scale."""
        import matplotlib as mpl

        mpl.use("svg")
        mpl.rcParams["svg.hashsalt"] = "dataplane"
        import matplotlib.pyplot as plt

        bars = sorted(self.bars, key=lambda bar: bar.micros)
        figure, axes = plt.subplots(figsize=(8, 0.5 * len(bars) + 1.2))
        names = [bar.name for bar in bars]
        drawn = axes.barh(
            names, [bar.micros for bar in bars], color=["#1f5fbf" if bar.ours else "#a9b4c2" for bar in bars]
        )
        axes.bar_label(drawn, [f" {bar.micros:,.2f}" for bar in bars], fontsize=8)
        axes.set_xscale("log")
        axes.set_xlabel("microseconds a request, logarithmic")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.15)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


Clock = Callable[[], float]


def side_by_side(
    works: Sequence[Callable[[], object]], *, number: int, rounds: int, clock: Clock = time.perf_counter
) -> list[float]:
    """Seconds a call of each, the best round: rounds take turns, so that what else runs on the machine
    strikes all of them alike. For work that waits for nobody pass `time.thread_time`: it does not count
    what others do meanwhile."""
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for index, work in enumerate(works):
            calls = range(number)
            began = clock()
            for _ in calls:
                work()
            best[index] = min(best[index], (clock() - began) / number)
    return best


def percentile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[min(998, int(share * 1000) - 1)]

"""`make faults`: inject every fault of the catalogue, print what held.

Runs the tests of this folder, the long ones too, and those elsewhere that the catalogue names. A fault
whose tests all passed held, one that lost any failed; one that nobody injects is said to be not covered.
Other arguments go to pytest: `python -m tests.faults -k postgres`.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.faults.catalogue import FAULTS

HERE = Path(__file__).parent
STYLE = {"held": "green", "failed": "bold red", "skipped": "yellow", "not run": "dim", "not covered": "dim"}


@dataclass
class Case:
    """One test: what became of it, how long it took, the figures it measured."""

    outcome: str = "passed"
    seconds: float = 0.0
    figures: dict[str, str] = field(default_factory=dict)


class Recorder:
    """A pytest plugin: which test injects which fault, and what became of it."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = defaultdict(Case)
        self.of: dict[int, set[str]] = defaultdict(set)

    @pytest.hookimpl(tryfirst=True)  # before -k and -m take any away
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            function = item.nodeid.partition("[")[0]
            marked = {int(n) for marker in item.iter_markers("fault") for n in marker.args}
            for number in marked | {n for n, fault in FAULTS.items() if function in fault.held_by}:
                self.of[number].add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case = self.cases[report.nodeid]
        case.seconds += report.duration
        if report.outcome != "passed":
            case.outcome = report.outcome
        if report.when == "call":
            case.figures |= {name: str(value) for name, value in report.user_properties}


def main(arguments: Sequence[str]) -> int:
    recorder = Recorder()
    elsewhere = sorted({node for fault in FAULTS.values() for node in fault.held_by})
    status = pytest.main(["-q", str(HERE), *elsewhere, *arguments], plugins=[recorder])
    console = Console(width=150, highlight=False)
    console.print(_table(recorder))
    for case in recorder.cases.values():
        for name, figure in case.figures.items():
            console.print(f"{name}: {figure}")
    return int(status)


def _table(recorder: Recorder) -> Table:
    count: Counter[str] = Counter()
    table = Table("#", "injected", "must hold", "result", "tests", "seconds", box=None, pad_edge=False)
    for number, fault in FAULTS.items():
        cases = [recorder.cases[node] for node in sorted(recorder.of[number]) if node in recorder.cases]
        result = _result(cases, known=bool(recorder.of[number]))
        count[result] += 1
        seconds = f"{sum(case.seconds for case in cases):.1f}" if cases else ""
        shown = f"[{STYLE[result]}]{result}[/]"
        table.add_row(str(number), fault.injected, fault.invariant, shown, str(len(cases) or ""), seconds)
    table.caption = ", ".join(f"{number} {result}" for result, number in count.most_common())
    return table


def _result(cases: list[Case], *, known: bool) -> str:
    """`known`: there are tests of it."""
    outcomes = {case.outcome for case in cases}
    if not outcomes:
        return "not run" if known else "not covered"
    if "failed" in outcomes:
        return "failed"
    return "held" if "passed" in outcomes else "skipped"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

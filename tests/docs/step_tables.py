"""The tables of steps in the pages, made of what the acts say where they register themselves.

`python -m tests.docs.step_tables`, a part of `make format`, writes each between its marks: the first,
`<!-- steps: transfer -->`, names the files of `workers/steps/` whose acts stand there in the order of
`StepName`; `<!-- /steps -->` ends it.
"""

from __future__ import annotations

import re
from pathlib import Path

import controlplane.workers.steps  # noqa: F401 — its acts register themselves
from controlplane.domain.steps import StepName
from controlplane.workers.steps.registry import EXPLAINED

DOCS = Path(__file__).parents[2] / "docs"
MARKED = re.compile(r"(<!-- steps: ([a-z_ ]+) -->\n).*?(<!-- /steps -->)", re.DOTALL)


def written(text: str) -> str:
    """The page with its tables as they should be."""
    return MARKED.sub(lambda found: found[1] + _table(found[2].split()) + found[3], text)


def families(text: str) -> list[str]:
    return [family for found in MARKED.finditer(text) for family in found[2].split()]


def pages() -> list[Path]:
    return [page for page in sorted(DOCS.glob("*.md")) if MARKED.search(page.read_text(encoding="utf-8"))]


def _table(named: list[str]) -> str:
    rows = ["| step | what it does | idempotent because |", "| --- | --- | --- |"]
    if missing := set(StepName) - set(EXPLAINED):
        raise LookupError(f"no act in workers/steps/ registered itself for {', '.join(sorted(missing))}")
    for name in StepName:
        if (act := EXPLAINED[name]).family in named:
            rows.append(f"| `{name}` | {act.does} | {act.again} |")
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    for stale in pages():
        stale.write_text(written(stale.read_text(encoding="utf-8")), encoding="utf-8")

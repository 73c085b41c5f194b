"""Every runbook that the code names has a page, and every page is named by the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"""(?:runbook=|RUNBOOK\w*(?::\s*\w+)?\s*=\s*)["']([a-z][a-z-]+)["']""")
CODE = "\n".join(
    path.read_text()
    for folder in ("controlplane", "workers")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
PAGES = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}


def test_every_runbook_named_in_the_code_has_a_page() -> None:
    named = set(NAMED.findall(CODE))
    assert len(named) > 15
    assert named - PAGES == set()


def test_every_page_is_named_by_the_code() -> None:
    assert {page for page in PAGES if f'"{page}"' not in CODE} == set()

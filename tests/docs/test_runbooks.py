"""Every runbook that the code names has a page, and every page is named."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(
    r"""(?:runbook=|RUNBOOK\w*(?::\s*\w+)?\s*=\s*|return str\(error\), )["']([a-z][a-z-]+)["']"""
    r"""|["']([a-z][a-z-]+)["'] if (?:held\.attempts|parked)"""
)


def named_in_code() -> set[str]:
    names: set[str] = set()
    for folder in ("controlplane", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            names |= {a or b for a, b in NAMED.findall(path.read_text())}
    return names


def test_every_runbook_named_in_the_code_has_a_page() -> None:
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}
    named = named_in_code()
    assert len(named) > 15
    assert named - pages == set()
    assert pages - named == set()

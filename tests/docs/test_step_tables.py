"""Every step is explained on one page, as its act says."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.workers.steps.registry import EXPLAINED
from tests.docs import step_tables


@pytest.mark.parametrize("page", step_tables.pages(), ids=lambda page: page.name)
def test_a_table_says_what_the_acts_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert step_tables.written(text) == text, "`make format` writes it"


def test_every_family_has_its_table_on_one_page() -> None:
    listed = [
        family
        for page in step_tables.pages()
        for family in step_tables.families(page.read_text(encoding="utf-8"))
    ]
    assert sorted(listed) == sorted({act.family for act in EXPLAINED.values()})


def test_an_act_that_was_changed_makes_its_table_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<!-- steps: hostnames -->\n<!-- /steps -->"
    assert "| `poll_hostname` | asks Cloudflare" in step_tables.written(text)
    assert "`publish`" not in step_tables.written(text)

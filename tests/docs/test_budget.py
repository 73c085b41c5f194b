"""The budget of things to know (ADR 10). What one event enters is counted by `make lint`, by itself."""

from __future__ import annotations

import pytest

from tests import budget

ALLOWED = budget.budget(budget.RECORD.read_text(encoding="utf-8"))


def test_what_stands_in_the_repository_is_within_the_budget() -> None:
    counted = budget.in_the_repository()
    assert budget.exceeded(counted, {name: ALLOWED[name] for name in counted}) == []


def test_a_count_over_the_budget_says_where_to_write_why() -> None:
    [line] = budget.exceeded({**ALLOWED, "tables": ALLOWED["tables"] + 1}, ALLOWED)
    assert line.startswith(f"tables: {ALLOWED['tables'] + 1}, over the budget of {ALLOWED['tables']}.")
    assert "add a line to docs/adr/0010-budget.md" in line


def test_a_count_that_finds_nothing_or_has_no_budget_is_told() -> None:
    assert budget.exceeded({**ALLOWED, "nouns": 0}, ALLOWED) != []
    assert budget.exceeded({**ALLOWED, "knobs": 1}, ALLOWED) != []


def test_the_last_line_of_the_record_counts() -> None:
    head = "text\n\n| since | tables | nouns | why |\n| --- | --- | --- | --- |\n"
    record = f"{head}| a | 1 | 2 | x |\n| b | 1,300 | 4 | y |\n"
    assert budget.budget(record) == {"tables": 1300, "nouns": 4}


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ('"""Why."""\nimport os\nfrom os import path\n', 0),
        ('class A:\n    """What."""\n    x: int = 1\n    """Unit."""\n', 2),
        ("def f():\n    if x:\n        return 1\n    return g(2)\n", 4),
    ],
)
def test_imports_and_docstrings_are_no_statements(source: str, number: int) -> None:
    assert budget.statements(source) == number

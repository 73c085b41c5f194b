"""The table of faults is about tests that are there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS

ROOT = Path(__file__).parents[2]
INVARIANTS = {f"I{number}" for number in range(1, 13)}


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_numbers_have_no_gap_and_invariants_are_known() -> None:
    assert sorted(FAULTS) == list(range(1, 76))
    assert {name for fault in FAULTS.values() for name in fault.invariant.split()} <= INVARIANTS


@pytest.mark.parametrize("number", sorted(FAULTS))
def test_what_is_said_to_hold_it_exists(number: int) -> None:
    for node in FAULTS[number].held_by:
        file, name = node.split("::")
        assert name in functions(file), node

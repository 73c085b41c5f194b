"""`python -m tests.mutants` over a toy: which mutants it makes, which tests it runs, what it asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import Mutant, Result, faults, files_for, mutants

ROOT = Path(__file__).parents[1]

GRADE = """
def grade(points: int, most: int) -> str:
    if not 0 <= points:
        return "none"
    return "full" if points == most else "part"
"""
LOOP = """
def halved(n: int) -> int:
    while n > 1:
        n //= 2
    return n
"""
SHARP = """
from toy.grade import grade
from toy.loop import halved
def test_grade():
    assert [grade(points, 3) for points in (-1, 0, 3)] == ["none", "part", "full"]
def test_halved():
    assert halved(1) == 1
"""
BLUNT = SHARP.replace("(-1, 0, 3)", "(-1,)").replace(', "part", "full"', "")
SURVIVES = "points == most  →  points != most"


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("if a: pass\nelif b: pass", {("a", "not a"), ("b", "not b")}),
        ("while not a: pass", {("not a", "a")}),
        ("assert a == b", {("a == b", "a != b")}),
        ("x = 1 if not a < b else 2", {("not a < b", "a < b")}),
        ("x = [y for y in z if y if y is not None]", {("y", "not y"), ("y is not None", "y is None")}),
        ("match x:\n    case 1 if a: pass", {("a", "not a")}),
        ("x = a and b and c", {("a and b and c", "a or b or c")}),
        ("x = a or f(b in c)", {("a or f(b in c)", "a and f(b in c)"), ("b in c", "b not in c")}),
        (
            "if a or b >= c: pass",
            {("a or b >= c", f) for f in ("not (a or b >= c)", "a and b >= c")} | {("b >= c", "b < c")},
        ),
        (
            "if a < b <= c: pass",
            {("a < b <= c", f) for f in ("not a < b <= c", "a >= b <= c", "a < b > c")},
        ),
        ("x = a + b\nfor y in z: f(not y)", set()),
    ],
)
def test_conditions_are_negated_and_each_and_or_and_comparison_is_turned(
    source: str, changes: set[tuple[str, str]]
) -> None:
    found = mutants("m", source)
    assert {(mutant.was, mutant.now) for _, mutant, _ in found} == changes
    assert len({changed for _, _, changed in found}) == len(found)


def test_only_the_place_itself_is_changed() -> None:
    found = mutants("m", "x = a == b\ny = a == b")
    assert [(line, changed) for line, _, changed in found] == [
        (1, "x = a != b\ny = a == b"),
        (2, "x = a == b\ny = a != b"),
    ]


def test_a_modules_tests_are_those_that_import_it_or_its_package_and_its_own_come_first(
    tmp_path: Path,
) -> None:
    for name, line in {
        "test_b": "from p.d.b import f",
        "test_a": "from p.d import b",
        "test_c": "import p.d.b.inner",
        "test_b_more": "def test():\n    from p.d.b.inner import g",
        "test_d": "from p.d import other",
        "helper": "import p.d.b",
    }.items():
        (tmp_path / f"{name}.py").write_text(line)
    names = [Path(path).stem for path in files_for("p.d.b.inner", "p.d", tmp_path)]
    assert names == ["test_b", "test_b_more", "test_a", "test_c"]
    assert [Path(path).stem for path in files_for("p.d.other", "p.d", tmp_path)] == ["test_d"]


def run(folder: Path, tests: str, *options: str, reasons: str = "") -> tuple[int, list[str]]:
    """(how it ended, the lines that it printed) over the toy with these tests."""
    for name, text in {
        "toy/grade.py": GRADE,
        "toy/loop.py": LOOP,
        "toy/constant.py": "x = 1\n",
        "toy_tests/test_toy.py": tests,
        "reasons.toml": reasons,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    given = ["--source=toy", "--tests=toy_tests", "--reasons=reasons.toml", *options]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.mutants", *given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


def test_where_every_mutant_dies_all_is_well_and_an_endless_loop_is_dead(tmp_path: Path) -> None:
    assert run(tmp_path, SHARP) == (0, ["toy.grade: 2 of 2 killed", "toy.loop: 1 of 1 killed"])


def test_a_survivor_is_named_with_its_line_and_fails(tmp_path: Path) -> None:
    assert run(tmp_path, BLUNT, "--module=grade") == (
        1,
        [
            "toy.grade: 1 of 2 killed",
            "  less than 95% killed",
            f"  line 5 survives without a reason: {SURVIVES}",
        ],
    )


def test_a_reason_is_read_by_the_text_of_its_change_and_must_have_a_survivor(tmp_path: Path) -> None:
    was, now = SURVIVES.split("  →  ")
    reasons = f'[[survivor]]\nmodule = "toy.grade"\nwas = "{was}"\nnow = "{now}"\nreason = "why"\n'
    assert run(tmp_path, BLUNT, "--module=grade", reasons=reasons) == (
        1,
        ["toy.grade: 1 of 2 killed", "  less than 95% killed"],
    )
    assert run(tmp_path, SHARP, "--module=grade", reasons=reasons) == (
        1,
        ["toy.grade: 2 of 2 killed", f"  a reason without a survivor: {SURVIVES}"],
    )


ONE = Mutant("m", "a == b", "a != b")
OTHER = Mutant("m", "a and b", "a or b")


@pytest.mark.parametrize(
    ("result", "known", "expected"),
    [
        (Result("m", 20, [(3, ONE)]), {ONE: "why"}, []),
        (Result("m", 20, [(3, ONE), (9, ONE)]), {ONE: "why"}, ["less than 95% killed"]),
        (Result("m", 20, [(3, ONE)]), {ONE: ""}, ["line 3 survives without a reason: a == b  →  a != b"]),
        (Result("m", 20, [(3, ONE)]), {}, ["line 3 survives without a reason: a == b  →  a != b"]),
        (Result("m", 20, []), {OTHER: "why"}, ["a reason without a survivor: a and b  →  a or b"]),
        (Result("n", 0, []), {OTHER: "why"}, []),
    ],
)
def test_a_survivor_has_a_reason_and_a_reason_has_a_survivor(
    result: Result, known: dict[Mutant, str], expected: list[str]
) -> None:
    assert faults(result, known) == expected


def test_a_module_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ended, printed = run(tmp_path, SHARP, "--module=other")
    assert (ended, printed[-1].partition("error: ")[2]) == (2, "--module: there is no toy.other")
    ended, printed = run(
        tmp_path, SHARP, reasons='[[survivor]]\nmodule = "toy.old"\nwas = "a"\nnow = "b"\nreason = "why"'
    )
    assert (ended, printed[-1].partition("error: ")[2]) == (2, "reasons.toml: there is no toy.old")


def test_results_as_json(tmp_path: Path) -> None:
    ended, printed = run(tmp_path, BLUNT, "--json", "--module=grade", "--module=constant")
    assert ended == 1
    was, now = SURVIVES.split("  →  ")
    assert json.loads("".join(printed)) == [
        {
            "module": "toy.grade",
            "mutants": 2,
            "survivors": [[5, {"module": "toy.grade", "was": was, "now": now}]],
        },
        {"module": "toy.constant", "mutants": 0, "survivors": []},
    ]


def test_tests_that_fail_without_a_mutant_are_told(tmp_path: Path) -> None:
    ended, printed = run(tmp_path, SHARP + "    assert False\n", "--module=grade")
    assert (ended, printed) == (
        1,
        ["toy.grade: its tests fail without a mutant: pytest toy_tests/test_toy.py"],
    )

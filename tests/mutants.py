"""`python -m tests.mutants`: is every decision of `controlplane/domain/` held by a test of `tests/domain`?

Each condition is negated, each `and` and `or` swapped, each comparison that is no whole condition negated.
One such change at a time is a mutant, and a test must fail by it. Nothing else is changed: `domain` consists
of decisions, and a text or a number that nobody promised is free to change.

A mutant costs a fork. The parent has imported pytest and Hypothesis and nothing of the product; the child
finds the changed module on `sys.meta_path` before the file, and runs the test files that import it, its own
first, until one test fails. Hypothesis draws the same examples every time. An endless loop ends at a limit
of CPU time and of memory, whatever else the machine does, and counts as killed.

A survivor needs a reason in `tests/mutants.toml`, by the text of the change, so that lines may move. It ends
with 1 where a module has less than 95 %, a survivor no reason, or a reason no survivor. Libraries were tried:
mutmut negates no conditions and can't be told its operators, Cosmic Ray starts pytest anew for each mutant.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import resource
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, ModuleType

import hypothesis
import hypothesis.strategies
import pytest
from hypothesis import HealthCheck, Phase

LEAST = 0.95
CPU_SECONDS = 3
"""That the tests may take over a mutant, where five times what they take without it is less."""
MEMORY = 4 << 30  # bytes of address space
FAILED = (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)  # interrupted: it can't be imported

NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.In: ast.NotIn, ast.Is: ast.IsNot,
}  # fmt: skip
NEGATED |= {after: before for before, after in NEGATED.items()}


@dataclass(frozen=True)
class Mutant:
    """One change: the expression `was` in the module, which is the expression `now` instead."""

    module: str
    was: str
    now: str


@dataclass(frozen=True)
class Result:
    """`survivors`: (line, mutant), by line."""

    module: str
    mutants: int
    survivors: list[tuple[int, Mutant]]

    @property
    def killed(self) -> int:
        return self.mutants - len(self.survivors)


# ------------------------------------------------------------------------------------------ mutants


def mutants(module: str, source: str) -> list[tuple[int, Mutant, str]]:
    """(line, mutant, the module with it as source), by line."""
    tree = ast.parse(source)
    found = []
    for node, instead in sorted(_changes(tree), key=lambda change: (change[0].lineno, change[0].col_offset)):
        changed = _Replace(node, instead).visit(copy.deepcopy(tree, {id(node): node}))
        mutant = Mutant(module, ast.unparse(node), ast.unparse(instead))
        found.append((node.lineno, mutant, ast.unparse(ast.fix_missing_locations(changed))))
    return found


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(an expression, what stands there instead). The walk meets a condition before what it consists of."""
    whole: set[ast.AST] = set()
    for node in ast.walk(tree):
        for condition in _conditions(node):
            negated = _negated(condition)
            whole |= {condition, negated}
            yield condition, negated
        match node:
            case ast.BoolOp(op=op, values=values):
                yield node, ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            case ast.Compare(ops=ops) if len(ops) > 1 or node not in whole:
                yield from ((node, _compared(node, at)) for at in range(len(ops)))


def _conditions(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.If() | ast.While() | ast.IfExp() | ast.Assert():
            return [node.test]
        case ast.comprehension():
            return node.ifs
        case ast.match_case(guard=ast.expr() as guard):
            return [guard]
    return []


def _negated(condition: ast.expr) -> ast.expr:
    match condition:
        case ast.UnaryOp(op=ast.Not()):
            return condition.operand
        case ast.Compare(ops=[_]):
            return _compared(condition, 0)
    return ast.UnaryOp(ast.Not(), condition)


def _compared(node: ast.Compare, at: int) -> ast.Compare:
    ops = [NEGATED[type(op)]() if at == here else op for here, op in enumerate(node.ops)]
    return ast.Compare(node.left, ops, node.comparators)


class _Replace(ast.NodeTransformer):
    def __init__(self, node: ast.expr, instead: ast.expr) -> None:
        self._node, self._instead = node, instead

    def visit(self, node: ast.AST) -> ast.AST:
        return self._instead if node is self._node else self.generic_visit(node)


# -------------------------------------------------------------------------------------------- tests


def files_for(module: str, package: str, tests: Path) -> list[str]:
    """The test files that import it, or a package within `package` that it is part of; its own first."""
    wanted, name = set(), module
    while name != package:
        wanted.add(name)
        name = name.rpartition(".")[0]
    own = tuple(f"test_{name.rpartition('.')[2]}" for name in wanted)
    found = [path for path in sorted(tests.glob("test_*.py")) if _imported(path) & wanted]
    return [str(path) for path in sorted(found, key=lambda path: not path.name.startswith(own))]


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


class _Loader(importlib.machinery.SourceFileLoader, importlib.abc.MetaPathFinder):
    """Is asked for every module before the files are, and has one: `source`, as if it stood in `path`."""

    def __init__(self, module: str, path: str, source: str) -> None:
        super().__init__(module, path)
        self._source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        mine = fullname == self.name
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self) if mine else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec")


@dataclass(frozen=True)
class Run:
    """One run of a module's tests over `source` in place of the module. `limit`: CPU seconds."""

    module: str
    path: str
    source: str
    tests: list[str]
    limit: int

    def __call__(self) -> tuple[int, float]:
        """How pytest ended in a process of its own (negative: by that signal), and its CPU seconds."""
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            resource.setrlimit(resource.RLIMIT_CPU, (self.limit, self.limit))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            sys.meta_path.insert(0, _Loader(self.module, self.path, self.source))
            # Without conftest.py and plugins, which serve tests that start servers.
            alone = ["-c", os.devnull, "--rootdir", ".", "--noconftest", "--disable-plugin-autoload"]
            os._exit(pytest.main([*alone, "-p", "no:cacheprovider", "-W", "error", "-x", "-q", *self.tests]))
        _, status, usage = os.wait4(child, 0)
        return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _killed(run: Run) -> bool:
    ended, _ = run()
    if ended == pytest.ExitCode.OK:
        return False
    if ended < 0 or ended in FAILED:
        return True
    raise RuntimeError(f"{run.module}: pytest ended with {ended} over\n{run.source}")


def examine(module: str, path: Path, package: str, tests: Path) -> Result:
    """Runs every mutant of the module at `path`, as many at once as there are cores."""
    source, files = path.read_text(encoding="utf-8"), files_for(module, package, tests)
    found = mutants(module, source)
    if not found or not files:
        return Result(module, len(found), [(line, mutant) for line, mutant, _ in found])
    ended, seconds = Run(module, str(path), source, files, 600)()
    if ended != pytest.ExitCode.OK:
        raise SystemExit(f"{module}: its tests fail without a mutant: pytest {' '.join(files)}")
    limit = max(CPU_SECONDS, round(5 * seconds))
    runs = [Run(module, str(path), changed, files, limit) for _, _, changed in found]
    with multiprocessing.get_context("fork").Pool() as pool:
        killed = pool.map(_killed, runs, chunksize=1)
    return Result(
        module, len(found), [place[:2] for place, dead in zip(found, killed, strict=True) if not dead]
    )


# ------------------------------------------------------------------------------------------- report


def reasons(path: Path) -> dict[Mutant, str]:
    """Why a mutant may survive."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])
    return {Mutant(e["module"], e["was"], e["now"]): e["reason"] for e in entries}


def faults(result: Result, known: dict[Mutant, str]) -> list[str]:
    """What is not as it must be, a line each. `known`: the reasons."""
    named = [(f"line {line}", mutant) for line, mutant in result.survivors if not known.get(mutant)]
    survived = {mutant for _, mutant in result.survivors}
    stale = [mutant for mutant in known if mutant.module == result.module and mutant not in survived]
    low = [f"less than {LEAST:.0%} killed"] if result.killed < LEAST * result.mutants else []
    return [
        *low,
        *(f"{where} survives without a reason: {mutant.was}  →  {mutant.now}" for where, mutant in named),
        *(f"a reason without a survivor: {mutant.was}  →  {mutant.now}" for mutant in stale),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--module", action="append", help="this one alone, such as drift or planner.purge")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--source", type=Path, default=Path("controlplane/domain"))
    parser.add_argument("--tests", type=Path, default=Path("tests/domain"))
    parser.add_argument("--reasons", type=Path, default=Path("tests/mutants.toml"))
    given = parser.parse_args(arguments)
    package = ".".join(given.source.parts)
    modules = {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(given.source.rglob("*.py"))
    }
    wanted = [f"{package}.{name}" for name in given.module] if given.module else list(modules)
    if unknown := set(wanted) - modules.keys():
        parser.error(f"--module: there is no {', '.join(sorted(unknown))}")
    known = reasons(given.reasons)
    if gone := {mutant.module for mutant in known} - modules.keys():
        parser.error(f"{given.reasons}: there is no {', '.join(sorted(gone))}")
    ended, results = 0, []
    for module in wanted:
        result = examine(module, modules[module], package, given.tests)
        results.append(result)
        found = faults(result, known)
        ended = 1 if found else ended
        if (result.mutants or found) and not given.json:
            print(f"{module}: {result.killed} of {result.mutants} killed", *found, sep="\n  ", flush=True)
    if given.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    return ended


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets decides what some tests see
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.mutants", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.settings.load_profile("mutants")
    sys.exit(main(sys.argv[1:]))

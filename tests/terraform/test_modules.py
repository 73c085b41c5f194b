"""The HCL itself: formatted, valid, and each module's own tests (`terraform test`, without AWS)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controlplane.localcloud.terraform_mirror import terraform_environment
from tests.harness.terraform import ROOT

STACKS = ["cluster", "placements"]


def terraform(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return terraform_environment(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """`init` writes beside the files; the repository stays clean."""
    return Path(shutil.copytree(ROOT, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform")))


def test_files_are_formatted(tools: dict[str, str]) -> None:
    assert terraform(ROOT, tools, "fmt", "-check", "-recursive") == ""


@pytest.mark.acceptance
@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_valid_with_the_locked_provider(copy: Path, tools: dict[str, str], stack: str) -> None:
    root = copy / "stacks" / stack
    terraform(root, tools, "init", "-backend=false", "-input=false", "-lockfile=readonly")
    terraform(root, tools, "validate")


@pytest.mark.acceptance
@pytest.mark.parametrize("module", STACKS)
def test_a_module_passes_its_own_tests(copy: Path, tools: dict[str, str], module: str) -> None:
    root = copy / "modules" / module
    terraform(root, tools, "init", "-input=false")
    assert "0 failed" in terraform(root, tools, "test", "-no-color")


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_hands_every_variable_and_output_through(stack: str) -> None:
    module, root = ROOT / "modules" / stack, ROOT / "stacks" / stack
    for file, word in (("variables.tf", "variable"), ("outputs.tf", "output")):
        assert names(root / file, word) == names(module / file, word)
    handed = {
        line.split("=")[0].strip() for line in (root / "main.tf").read_text().splitlines() if "= var." in line
    }
    assert handed == set(names(module / "variables.tf", "variable"))


def names(path: Path, word: str) -> list[str]:
    return [line.split('"')[1] for line in path.read_text().splitlines() if line.startswith(f'{word} "')]


@pytest.mark.parametrize("stack", STACKS)
def test_every_variable_is_typed_and_described(stack: str) -> None:
    for path in (ROOT / "modules" / stack / "variables.tf", ROOT / "stacks" / stack / "variables.tf"):
        for block in path.read_text().split('variable "')[1:]:
            assert "  description = " in block, block.split('"')[0]
            assert re.search(r"^  type +=", block, re.M), block.split('"')[0]

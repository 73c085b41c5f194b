"""What the pages name is there: files, folders, functions behind them, tests, links, headings, make targets.

A path may be written as in the repository or from `controlplane/` on (`store/event.py`); a function stands
behind its module (`store/job.claim`) or behind `::`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOMES = (ROOT, ROOT / "controlplane")
FOLDERS = (
    "controlplane|workers|dataplane|terraform|localcloud|tests|docs|examples|benchmarks|requirements|"
    "domain|store|services|web|cli|engine|steps"
)
NAMED = re.compile(rf"`(?:pytest (?:-m \w+ )?)?((?:{FOLDERS})/[^`\s]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python -m ((?:benchmarks|controlplane|localcloud|tests|workers)[\w.]*)")
TARGET = re.compile(r"`make ([a-z-]+)")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _there(name: str) -> bool:
    path, _, behind = name.partition("::")
    for home in HOMES:
        if any(home.glob(path.rstrip("/"))):
            return not behind or _defines(home / path, behind)
        module, _, function = path.rpartition(".")
        if module and (home / f"{module}.py").is_file():
            return _defines(home / f"{module}.py", function)
    return False


def _defines(file: Path, name: str) -> bool:
    defined = rf"^\s*(?:async )?(?:def|class) {name}\b|^{name}\b.* = "
    return re.search(defined, file.read_text(), re.MULTILINE) is not None


def _headings(page: Path) -> set[str]:
    """As GitHub makes anchors of them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in NAMED.findall(text) if not _there(name)]
    missing += [f"make {target}" for target in TARGET.findall(text) if target not in TARGETS]
    for module in MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
            missing.append(module)
    for link in LINK.findall(text):
        target, _, heading = link.partition("#")
        if "://" in target:
            continue
        found = page.parent / target if target else page
        if not found.exists() or (heading and heading not in _headings(found)):
            missing.append(link)
    assert missing == []


def test_a_name_that_is_not_there_is_found() -> None:
    assert _there("store/job.claim")
    assert _there("tests/docs/test_references.py::test_a_name_that_is_not_there_is_found")
    assert not _there("store/job.claims")
    assert not _there("workers/converge.py")
    assert not _there("tests/docs/test_references.py::test_nothing")


RECIPE = re.compile(r"^## (Add an? [a-z ]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "text"), RECIPE.findall((ROOT / "CONTRIBUTING.md").read_text()))
def test_a_recipe_takes_at_most_four_places(name: str, text: str) -> None:
    places = re.findall(r"^\d\. (.*)", text, re.MULTILINE)
    assert 1 < len(places) <= 4, name

"""The page of results: each benchmark writes its own section, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import page

TEXT = (
    "# Results\n\n<!-- begin one -->\nold\n<!-- end one -->\n\n<!-- begin two -->\nkept\n<!-- end two -->\n"
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "RESULTS.md"
    path.write_text(TEXT)
    return path


def test_a_benchmark_replaces_its_own_section(written: Path) -> None:
    page.write("one", "new \\1\n", page=written)
    assert written.read_text() == TEXT.replace("old", "new \\1")


def test_a_new_one_comes_behind_the_others(written: Path) -> None:
    page.write("three", "first", page=written)
    page.write("three", "second", page=written)
    assert written.read_text() == TEXT + "\n<!-- begin three -->\nsecond\n<!-- end three -->\n"


def test_a_line_comes_behind_the_earlier_ones_of_its_section(written: Path) -> None:
    for line in ("- first \\1", "- second"):
        page.append("runs", "## Runs\n\n", line, page=written)
    page.append("one", "## Not used\n\n", "- more", page=written)
    section = "\n<!-- begin runs -->\n## Runs\n\n- first \\1\n- second\n<!-- end runs -->\n"
    assert written.read_text() == TEXT.replace("old", "old\n- more") + section


def test_a_name_that_would_break_the_markers_is_refused(written: Path) -> None:
    with pytest.raises(ValueError, match="name: expected a-z and hyphens"):
        page.write("one -->", "x", page=written)


def test_every_section_says_when_it_was_measured_and_what_it_shows_is_there() -> None:
    text = page.PAGE.read_text()
    sections = re.findall(r"<!-- begin ([a-z-]+) -->\n(.*?)<!-- end \1 -->", text, re.DOTALL)
    assert len(sections) >= 2
    for name, body in sections:
        assert re.search(r"Measured on \d{4}-\d\d-\d\d", body), name
        pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", body)
        assert [p for p in pictures if not (page.PAGE.parent / p).is_file()] == []


def test_the_stamp_names_machine_date_and_load() -> None:
    assert re.fullmatch(
        r"Measured on \d{4}-\d\d-\d\d on \d+ cores \(.+\), \d+ GB, .+, Python 3[.\d]+; load 1\.5 before,"
        r" [\d.]+ after\.",
        page.stamp(1.5),
    )

"""What people see: whole words in a table, whatever the terminal's width."""

from __future__ import annotations

import pytest

from controlplane.cli import show

ID = "t-7f3k2m9qxw"
REASON = "the cluster's quota is used up and somebody has to ask for more of it, or give some back"


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    show.table(["id", "slug", "reason"], [(ID, "a" * 40, REASON)], none="nothing")
    return capsys.readouterr().out.splitlines()


def test_a_script_gets_one_line_for_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    _header, row = printed(capsys)
    assert row.split() == [ID, "a" * 40, *REASON.split()]


@pytest.mark.parametrize("width", [200, 80, 40])
def test_a_terminal_folds_the_last_column_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(width))
    _header, first, *rest = printed(capsys)
    assert first.split()[:2] == [ID, "a" * 40]
    assert max(len(line.rstrip()) for line in (first, *rest)) <= max(width, 82)
    assert "".join([first.split(maxsplit=2)[2], *rest]).replace(" ", "") == REASON.replace(" ", "")

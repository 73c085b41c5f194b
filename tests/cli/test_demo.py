"""How the demo ends: by Ctrl-C once all was shown, which is no failure, and before that, which is one."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.main import cli
from controlplane.localcloud.demo import processes, scenario


def demo(monkeypatch: pytest.MonkeyPatch, *, interrupted: str) -> tuple[Result, list[str]]:
    """`interrupted`: what is at work when Ctrl-C comes. And what was done, in order."""
    done: list[str] = []

    class Told:
        def __init__(self, *_args: Any, **_options: Any) -> None:
            pass

        def __enter__(self) -> Told:
            return self

        def __exit__(self, *_: object) -> None:
            done.append("stopped")

        def __getattr__(self, name: str) -> Any:
            def act() -> None:
                done.append(name)
                if name == interrupted:
                    raise KeyboardInterrupt

            return act

    monkeypatch.setattr(processes, "DemoProcesses", Told)
    monkeypatch.setattr(scenario, "Scenario", Told)
    return CliRunner().invoke(cli, ["demo"]), done


def test_the_end_of_a_demo_that_has_shown_all_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, done = demo(monkeypatch, interrupted="wait_until_one_fails")
    assert done == ["run", "where_to_go_next", "wait_until_one_fails", "stopped"]
    assert (ended.exit_code, ended.output) == (0, "nothing is left running\n")


def test_one_that_is_cut_off_before_has_not_shown_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, done = demo(monkeypatch, interrupted="run")
    assert done == ["run", "stopped"]
    assert (ended.exit_code, "before all was shown" in ended.output) == (130, True)

"""`controlplane doctor`: run it where a worker runs, with a worker's environment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from controlplane.cli import options, show
from controlplane.cli.failure import Failure, Misuse
from controlplane.settings import SettingsError, WorkerSettings

if TYPE_CHECKING:
    from controlplane.workers.drift.doctor import Check

WHERE = "the doctor looks with a worker's eyes: run it where a worker runs, with a worker's environment"


@click.command("doctor")
@options.as_json
def command(*, as_json: bool) -> None:
    """Check every outside system of a worker, one line each; fails if one does."""
    from controlplane.workers.drift.doctor import checks

    try:
        settings = WorkerSettings.from_environment()
    except SettingsError as error:
        raise Misuse(f"{error}\n{WHERE}") from error
    report(checks(settings), as_json=as_json)


def report(checks: Iterable[Check], *, as_json: bool) -> None:
    """A line for each as it comes, or all as one document. Raises Failure where one failed."""
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            word = "ok    " if check.ok else "FAILED"
            show.line(f"{word}  {check.name:<18}  {check.seconds:5.2f} s  {check.detail}")
    failed = [check.name for check in found if not check.ok]
    if as_json:
        show.as_json({"ok": not failed, "checks": [asdict(check) for check in found]})
    if failed:
        raise Failure(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}")

"""One terraform process: started so that it can be stopped, watched until it ends.

Output goes to files in the run's own folder, not to pipes: a terraform whose parent has died gets
SIGINT, says so on its standard output, and a broken pipe there would kill it before it saved its
state. Between us and terraform stands a supervisor, which interrupts it once and alone, never its group:
a provider that dies with terraform leaves what it was creating out of the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.domain.errors import LeaseLost, Retryable
from controlplane.workers.providers.supervised import Supervised

GRACE = 10.0  # seconds between SIGINT and SIGKILL
TICK = 0.1  # seconds between two polls of the process
ASK = 0.5  # seconds between two questions to `stopped`
ERRORS_LIMIT = 64 * 1024  # bytes of standard error that are kept
OUTPUT_LIMIT = 64 * 1024 * 1024  # bytes of standard output that are read at most


@dataclass(frozen=True, slots=True)
class Finished:
    """`code`: the exit status, negative for a signal. `errors`: the end of standard error."""

    code: int
    output: Path
    errors: str
    seconds: float

    def text(self) -> str:
        with self.output.open("rb") as file:
            return file.read(OUTPUT_LIMIT).decode("utf-8", "replace")


def run(
    command: Sequence[str],
    *,
    folder: Path,
    name: str,
    environment: Mapping[str, str],
    timeout: float,
    stopped: Callable[[], bool] = lambda: False,
    on_line: Callable[[str], None] = lambda _line: None,
    on_tick: Callable[[], None] = lambda: None,
    keep_open: Sequence[int] = (),
) -> Finished:
    """Run `command` in `folder` for at most `timeout` seconds.

    `on_line` gets each line of standard output, `on_tick` is called about ten times a second,
    `stopped` asked twice a second; whatever any of them raises stops the process first. `keep_open`:
    file descriptors that the process shall hold as long as it lives.

    Raises LeaseLost once `stopped` says so, Retryable at the timeout.
    """
    output, errors = folder / f"{name}.out", folder / f"{name}.err"
    began = time.monotonic()
    with output.open("wb") as out, errors.open("wb") as err:
        process = Supervised(
            command,
            grace=GRACE,
            folder=folder,
            environment=environment,
            output=out,
            errors=err,
            keep_open=keep_open,
        )
    try:
        with output.open("rb") as lines:
            tail, asked = b"", began
            while True:
                code = process.wait(TICK)
                tail = _feed(tail + lines.read(OUTPUT_LIMIT), on_line)
                if code is not None:
                    return Finished(code, output, _end_of(errors), time.monotonic() - began)
                on_tick()
                now = time.monotonic()
                if now - asked >= ASK:
                    asked = now
                    if stopped():
                        raise LeaseLost(f"terraform {name} was stopped: another holder has the lease")
                if now - began > timeout:
                    raise Retryable(f"terraform {name} took longer than {timeout:.0f} s and was stopped")
    finally:
        process.stop()  # it saves its state and gives back its lock


def _feed(data: bytes, on_line: Callable[[str], None]) -> bytes:
    """Hand over the whole lines of `data`, return the rest."""
    *whole, rest = data.split(b"\n")
    for line in whole:
        on_line(line.decode("utf-8", "replace"))
    return rest


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - ERRORS_LIMIT))
        return file.read().decode("utf-8", "replace")

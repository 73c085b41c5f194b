"""Watching an operation: what is new since the last observation, as lines, until it ends.

Lines are only ever added, so the same output serves a terminal, a log and a pipe. An API that is away
for a moment (a deployment) does not end the watch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from controlplane.cli import show
from controlplane.cli.api import Api, Json
from controlplane.cli.failure import GaveUp, Unreachable

POLL = 0.5  # seconds
PATIENCE = 60.0  # seconds that the API may be away
ENDED = frozenset({"done", "parked"})


def patient_get(api: Api, path: str, *, until: float, **query: int) -> Json:
    """Ask again while the API is away, for PATIENCE and not beyond `until` (monotonic seconds)."""
    give_up = min(until, time.monotonic() + PATIENCE)
    while True:
        try:
            return api.get(path, **query)
        except Unreachable:
            if time.monotonic() >= give_up:
                raise
            time.sleep(POLL)


def await_end(
    api: Api,
    path: str,
    *,
    busy: Callable[[Json], bool],
    timeout: float,
    late: Callable[[Json], str],
    report: Callable[[Json], None] = lambda _observed: None,
) -> Json:
    """What is at `path` once it is `busy` no longer; `report` hears of each look before.

    Raises GaveUp after `timeout` seconds, with the words of `late`; Missing and the others of `Api`.
    """
    deadline = time.monotonic() + timeout
    while busy(observed := patient_get(api, path, until=deadline)):
        report(observed)
        if time.monotonic() > deadline:
            raise GaveUp(late(observed))
        time.sleep(POLL)
    return observed


def watch(api: Api, operation_id: int, *, timeout: float, say: Callable[[str], None]) -> Json:
    """The operation once it has ended, or the one that has absorbed it.

    Raises GaveUp after `timeout` seconds, Missing and the others of `Api`.
    """
    deadline = time.monotonic() + timeout
    progress = _Progress(say)
    while True:
        path = f"/v1/operations/{operation_id}"
        observed = patient_get(api, path, until=deadline, events_after=progress.after)
        progress.report(observed)
        if observed["events"]:
            continue  # there may be more of them than one answer holds
        if observed["state"] in ENDED:
            return observed
        elif time.monotonic() > deadline:
            raise GaveUp(f"operation {operation_id} is still {observed['state']} after {timeout:g} s")
        else:
            time.sleep(POLL)


@dataclass(slots=True)
class _Progress:
    """`after`: the id of the last progress event that was printed. `known`: step → state printed."""

    say: Callable[[str], None]
    after: int = 0
    known: dict[int, str] = field(default_factory=dict)
    state: tuple[str, int] | None = None

    def report(self, observed: Json) -> None:
        self.after = observed["events_after"]
        self._report_operation(observed)
        for step in observed["steps"]:
            self._report_step(step, [event for event in observed["events"] if event["step"] == step["seq"]])

    def _report_operation(self, observed: Json) -> None:
        now = (observed["state"], observed["attempts"])
        if now == self.state:
            return
        if self.state is None:
            name = f"operation {observed['id']} on {observed['kind']} {observed['resource']}"
            self.say(f"{name}: {observed['reason']} (asked for by {observed['actor']})")
        if observed["state"] == "waiting" and observed["error"] is not None:
            self.say(f"waits until {show.moment(observed['next_attempt_at'])}: {observed['error']}")
        self.state = now

    def _report_step(self, step: Json, events: list[Json]) -> None:
        name = f"{step['seq']:>3} {step['name']}" + (f" {step['target']}" if step["target"] else "")
        if step["seq"] not in self.known:
            self.say(f"{name}: {step['reason']}")
            self.known[step["seq"]] = "running"
        for event in events:
            after = "" if event["seconds"] is None else f" {event['seconds']:.1f} s"
            what = " ".join(filter(None, (event["address"], event["action"], event["kind"])))
            self.say(f"      {what}{after}")
        if step["state"] != self.known[step["seq"]]:
            error = "" if step["error"] is None else f": {step['error']}"
            self.say(f"{name}: {step['state']} {show.seconds(step['seconds'])}{error}")
            self.known[step["seq"]] = step["state"]

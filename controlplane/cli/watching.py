"""Watching an operation: what is new since the last look, as lines, until it ends.

Lines are only ever added, so the same output serves a terminal, a log and a pipe. An API that is away
for a moment (a deployment) does not end the watch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from controlplane.cli import show
from controlplane.cli.api import Api, Json
from controlplane.cli.failure import Failure, GaveUp, Unreachable

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
    busy: Collection[str],
    timeout: float,
    late: Callable[[Json], str],
    tell: Callable[[Json], None] = lambda _seen: None,
) -> Json:
    """What is at `path` once its state is none of `busy`; `tell` hears of each look before.

    Raises GaveUp after `timeout` seconds, with the words of `late`; Missing and the others of `Api`.
    """
    deadline = time.monotonic() + timeout
    while (seen := patient_get(api, path, until=deadline))["state"] in busy:
        tell(seen)
        if time.monotonic() > deadline:
            raise GaveUp(late(seen))
        time.sleep(POLL)
    return seen


def watch(api: Api, operation_id: int, *, timeout: float, say: Callable[[str], None]) -> Json:
    """The operation once it has ended. One that was superseded is followed by its successor.

    Raises GaveUp after `timeout` seconds, Missing and the others of `Api`.
    """
    deadline = time.monotonic() + timeout
    teller = _Teller(say)
    while True:
        path = f"/v1/operations/{operation_id}"
        seen = patient_get(api, path, until=deadline, events_after=teller.after)
        teller.tell(seen)
        if seen["events"]:
            continue  # there may be more of them than one answer holds
        if seen["state"] == "superseded":
            operation_id = _successor(api, seen)
            teller = _Teller(say)
        elif seen["state"] in ENDED:
            return seen
        elif time.monotonic() > deadline:
            raise GaveUp(f"operation {operation_id} is still {seen['state']} after {timeout:g} s")
        else:
            time.sleep(POLL)


def _successor(api: Api, ended: Json) -> int:
    newest = api.get("/v1/operations", resource=ended["resource"], limit=1)["items"][0]
    if newest["id"] <= ended["id"]:
        raise Failure(f"operation {ended['id']} was superseded, and there is no later one")
    return int(newest["id"])


@dataclass(slots=True)
class _Teller:
    """`after`: the id of the last progress event that was told. `known`: step → state told."""

    say: Callable[[str], None]
    after: int = 0
    known: dict[int, str] = field(default_factory=dict)
    state: tuple[str, int] | None = None

    def tell(self, seen: Json) -> None:
        self.after = seen["events_after"]
        self._tell_operation(seen)
        for step in seen["steps"]:
            self._tell_step(step, [event for event in seen["events"] if event["step"] == step["seq"]])

    def _tell_operation(self, seen: Json) -> None:
        now = (seen["state"], seen["attempts"])
        if now == self.state:
            return
        if self.state is None:
            name = f"operation {seen['id']} on {seen['kind']} {seen['resource']}"
            self.say(f"{name}: {seen['reason']} (asked for by {seen['actor']})")
        if seen["state"] == "waiting" and seen["error"] is not None:
            self.say(f"waits until {show.moment(seen['next_attempt_at'])}: {seen['error']}")
        self.state = now

    def _tell_step(self, step: Json, events: list[Json]) -> None:
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

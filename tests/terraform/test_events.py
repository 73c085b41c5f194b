"""Lines of `terraform apply -json`, as recorded from Terraform 1.11.4."""

from __future__ import annotations

import json

from controlplane.workers.providers.ports import ResourceEvent
from controlplane.workers.providers.terraform.diagnostics import Diagnostic
from controlplane.workers.providers.terraform.events import Stream
from tests.harness.terraform import Events

ALL = frozenset({"planned", "started", "progress", "done", "failed"})
ROLE = "module.cluster.aws_iam_role.this"


def read(*lines: dict[str, object] | str) -> tuple[Events, Stream]:
    events = Events()
    stream = Stream(events, kinds=ALL)
    for line in lines:
        stream.line(line if isinstance(line, str) else json.dumps(line))
    return events, stream


def hook(kind: str, action: str = "create", **more: object) -> dict[str, object]:
    about = {"resource": {"addr": ROLE}, "action": action} | more
    return {"type": kind, "@message": f"{ROLE}: it says [id=t-secretive-1]", "hook": about}


def test_a_resource_is_followed_without_its_id() -> None:
    events, _ = read(
        hook("apply_start"),
        hook("apply_progress", elapsed_seconds=10),
        hook("apply_complete", elapsed_seconds=12),
        hook("apply_errored", elapsed_seconds=13),
    )
    message = f"{ROLE}: it says"
    assert events == [
        ResourceEvent("started", ROLE, "create", None, message),
        ResourceEvent("progress", ROLE, "create", 10.0, message),
        ResourceEvent("done", ROLE, "create", 12.0, message),
        ResourceEvent("failed", ROLE, "create", 13.0, message),
    ]


def test_a_planned_change_says_whether_it_imports() -> None:
    planned = {"type": "planned_change", "@message": "x"}
    change = {"resource": {"addr": ROLE}, "action": "update"}
    events, _ = read(
        planned | {"change": change},
        planned | {"change": change | {"importing": {"id": "t-1"}}},
        planned | {"change": change | {"action": "noop"}},
        planned | {"change": change | {"action": "read"}},
    )
    assert [(e.kind, e.action) for e in events] == [("planned", "update"), ("planned", "import")]


def test_outputs_are_kept_and_sensitive_ones_are_not() -> None:
    _, stream = read(
        {
            "type": "outputs",
            "outputs": {
                "role_arn": {"sensitive": False, "value": "arn"},
                "later": {"sensitive": False, "action": "create"},
                "secret": {"sensitive": True, "value": "canary"},
            },
        }
    )
    assert stream.outputs == {"role_arn": "arn"}


def test_errors_are_kept_and_warnings_are_not() -> None:
    error = {"severity": "error", "summary": "no", "detail": "because", "address": ROLE}
    _, stream = read(
        {"type": "diagnostic", "diagnostic": error},
        {"type": "diagnostic", "diagnostic": error | {"severity": "warning"}},
    )
    assert stream.errors == [Diagnostic("no", "because", ROLE)]


def test_what_is_no_event_is_passed_over() -> None:
    events, stream = read("", "Interrupt received.", "[]", '{"type": "version"}', '{"type": "apply_start"}')
    assert events == []
    assert stream.errors == []

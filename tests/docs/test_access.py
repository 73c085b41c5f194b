"""The policies that docs/access.md gives to the operator, held to what they are said to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from controlplane.localcloud.aws.account import ASSUME_CLUSTER_ROLES, BOUNDARY
from controlplane.localcloud.aws.policy import Policy, Principal, Request, decide
from tests.harness.access import policy, trust

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text(encoding="utf-8")
POLICIES: dict[str, Any] = {
    name: json.loads(text)
    for name, text in re.findall(r"<!-- policy (\w+) -->\n```json\n(.+?)```", PAGE, re.DOTALL)
}
ACCOUNT, PLACEMENT, CLUSTER = "123456789012", "p-abcdefghijkl", "c-abcdefghijkl"
SECRET = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:placements/p-abcdefghijkl/app-AbCdEf"
READ, TAG = "secretsmanager:GetSecretValue", "secretsmanager:TagResource"


def role(name: str) -> Principal:
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/x"
    return Principal(ACCOUNT, session, f"arn:aws:iam::{ACCOUNT}:role/{name}")


def test_the_local_cloud_has_the_policies_of_the_page() -> None:
    assert POLICIES.keys() == {"app", "boundary", "tags"}
    assert (POLICIES["app"], POLICIES["boundary"]) == (ASSUME_CLUSTER_ROLES, BOUNDARY)


@pytest.mark.parametrize(
    ("session", "secret", "allowed"),
    [
        ({"aws:principaltag/placement": [PLACEMENT]}, PLACEMENT, True),
        ({"aws:principaltag/placement": [PLACEMENT]}, "p-zzzzzzzzzzzz", False),
        ({"aws:principaltag/placement": ["*"]}, PLACEMENT, False),
        ({}, PLACEMENT, False),
    ],
)
@pytest.mark.parametrize("opened", [False, True], ids=["the module's policy", "one opened by hand"])
def test_the_boundary_holds_whatever_is_attached(
    session: dict[str, list[str]], secret: str, allowed: bool, opened: bool
) -> None:
    everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    context = {
        **session,
        "secretsmanager:resourcetag/placement": [secret],
        "secretsmanager:resourcetag/cluster": [CLUSTER],
    }
    decision = decide(
        Request(role(CLUSTER), READ, SECRET, context),
        identity=[Policy(everything if opened else policy(CLUSTER))],
        boundary=Policy(POLICIES["boundary"]),
    )
    assert (decision == "allowed") is allowed


def test_the_application_may_become_a_session_and_nothing_else() -> None:
    app, target = role("app-task"), f"arn:aws:iam::{ACCOUNT}:role/{CLUSTER}"
    asked = {"aws:requesttag/placement": [PLACEMENT], "aws:tagkeys": ["placement"]}
    trusting = Policy(trust(str(app.role)))
    for action in ("sts:AssumeRole", "sts:TagSession"):
        request = Request(app, action, target, asked)
        identity = [Policy(POLICIES["app"])]
        assert decide(request, identity=identity, resource=trusting, resource_must_grant=True) == "allowed"
    for action, resource in ((READ, SECRET), ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/worker")):
        assert not Policy(POLICIES["app"]).allows(Request(app, action, resource))


@pytest.mark.parametrize(("who", "denied"), [("worker", False), ("app-task", True), (CLUSTER, True)])
def test_only_the_worker_tags(who: str, denied: bool) -> None:
    context = {"aws:principalarn": [f"arn:aws:iam::{ACCOUNT}:role/{who}"]}
    assert Policy(POLICIES["tags"]).denies(Request(role(who), TAG, SECRET, context)) is denied
    assert not Policy(POLICIES["tags"]).denies(Request(role(who), READ, SECRET, context))

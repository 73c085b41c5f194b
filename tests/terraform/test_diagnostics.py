"""Who acts next, for what AWS and Terraform answer."""

from __future__ import annotations

import pytest

from controlplane.domain.errors import NeedsHuman, Retryable
from workers.providers.terraform.diagnostics import Diagnostic, failure, of_stderr

RDS = "creating RDS Cluster (c-x): operation error RDS: CreateDBCluster, response StatusCode: {}, {}"


@pytest.mark.parametrize(
    "text",
    [
        RDS.format(400, "api error Throttling: Rate exceeded"),
        RDS.format(503, "api error ServiceUnavailable: try later"),
        RDS.format(500, "InternalFailure"),
        RDS.format(400, "deserialization failed, failed to decode response body, invalid character '<'"),
        'request send failed, Post "https://rds": dial tcp: connection refused',
        "Error acquiring the state lock",
        "api error MalformedPolicyDocument: Invalid principal in policy",
        "InvalidDBClusterStateFault: the cluster is not available",
        "api error DBClusterAlreadyExistsFault: exists",
        "You can't create this secret because a secret with this name is already scheduled for deletion.",
        "timeout while waiting for state to become 'available' (last state: 'creating', timeout: 2h0m0s)",
        "Failed to save state",
        "api error RequestLimitExceeded: slow down",
        "Plugin did not respond",
        "Request cancelled",
        "Plugin error: rpc error: code = Unavailable desc = transport is closing",
    ],
)
def test_what_time_mends(text: str) -> None:
    assert isinstance(failure("apply", 1, [Diagnostic(text)]), Retryable)


@pytest.mark.parametrize(
    ("text", "runbook"),
    [
        ("api error DBClusterQuotaExceededFault: 40 clusters", "aws-quota"),
        ("InstanceQuotaExceeded: You have reached your quota", "aws-quota"),
        ("api error LimitExceeded: Cannot exceed quota for RolesPerAccount: 1000", "aws-quota"),
        ("api error AccessDenied: not authorized", "aws-credentials"),
        ("No valid credential sources found", "aws-credentials"),
        ("Invalid value for variable", "terraform-configuration"),
        ("api error InvalidParameterValue: no such engine version", "terraform-configuration"),
    ],
)
def test_what_a_person_must_mend(text: str, runbook: str) -> None:
    found = failure("apply", 1, [Diagnostic("x: connection refused"), Diagnostic("creating it", text)])
    assert isinstance(found, NeedsHuman)
    assert found.runbook == runbook


def test_a_killed_terraform_is_worth_a_retry() -> None:
    found = failure("plan", -9, [])
    assert isinstance(found, Retryable)
    assert "signal 9" in str(found)


def test_a_message_is_short_and_holds_no_detail() -> None:
    long = Diagnostic(
        "x" * 2000 + ", RequestID: 1234", "the detail quotes configuration: canary", "module.a.b"
    )
    message = str(failure("apply", 1, [long]))
    assert message.startswith("terraform apply module.a.b: xxx")
    assert len(message) == 300
    assert "canary" not in message


def test_request_ids_do_not_make_two_equal_errors_differ() -> None:
    first, second = (
        str(failure("apply", 1, [Diagnostic(f"bad thing, RequestID: {n}-{n}, api error Nope: no")]))
        for n in (1, 2)
    )
    assert first == second == "terraform apply: bad thing, api error Nope: no"


def test_drawn_errors_are_read() -> None:
    text = "╷\n│ \x1b[31mError: \x1b[0mNo such workspace\n│ \n│ Some detail\n╵\n"
    assert of_stderr(text) == [Diagnostic("No such workspace", "Some detail")]
    assert of_stderr("") == []

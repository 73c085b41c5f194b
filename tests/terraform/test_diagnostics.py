"""Who acts next, for what AWS and Terraform answer."""

from __future__ import annotations

import pytest

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.workers.providers.terraform.diagnostics import Diagnostic, failure, of_stderr

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


SLR = (
    "api error InvalidParameterValue: Unable to create the resource. Verify that you have permission to"
    " create service linked role. Otherwise wait and try again later"
)
NO_ANSWER = (
    "No valid credential sources found\n\nError: failed to refresh cached credentials, no EC2 IMDS role"
    " found, operation error ec2imds: GetMetadata, request canceled, context deadline exceeded"
)


@pytest.mark.parametrize(
    ("text", "runbook", "least"),
    [
        (RDS.format(400, "api error InsufficientDBInstanceCapacity: not in the zone"), "aws-capacity", 60),
        (RDS.format(403, "InsufficientDBClusterCapacityFault: not enough"), "aws-capacity", 60),
        (RDS.format(400, "InsufficientStorageClusterCapacity: no storage"), "aws-capacity", 60),
        (RDS.format(400, SLR), "aws-credentials", 30),
        ("api error DependencyViolation: resource sg-1 has a dependent object", "aws-settling", 30),
        ("StatusCode: 403, api error RequestTimeTooSkewed: The difference is too large", "clock-skew", 30),
        ("StatusCode: 400, RequestExpired: Request has expired", "clock-skew", 30),
        ("SignatureDoesNotMatch: Signature expired: 1 is now earlier than 2", "clock-skew", 30),
        ("StatusCode: 400, api error RequestTimeout: Your socket connection", "aws-unavailable", 10),
        ("PaginationTokenExpiredException", "aws-unavailable", 10),
        (NO_ANSWER, "aws-credentials", 10),
        ("unexpected state 'backing-up', wanted target 'available'", "aws-settling", 10),
        ("unexpected state 'resetting-master-credentials', wanted 'available'", "aws-settling", 10),
        (RDS.format(400, "api error Throttling: Rate exceeded"), "aws-unavailable", 30),
        (
            "Error acquiring the state lock\nStatusCode: 412, api error PreconditionFailed",
            "foreign-state-lock",
            30,
        ),
        ("InvalidDBClusterStateFault: the cluster is not available", "aws-settling", 10),
        ("api error KMSKeyNotAccessibleFault: does not exist, is not enabled", "kms-key", 10),
        ("a secret with this name is already scheduled for deletion.", "aws-settling", 10),
        ("Plugin did not respond", "retrying", 10),
    ],
)
def test_what_passes_says_what_to_do_once_it_has_lasted(text: str, runbook: str, least: float) -> None:
    found = failure("apply", 1, [Diagnostic("creating it", text)])
    assert isinstance(found, Retryable)
    assert found.runbook == runbook
    assert found.after is not None
    assert found.after >= least


def test_of_several_that_pass_the_longest_decides() -> None:
    texts = ("connection refused", "api error InsufficientDBInstanceCapacity: x", "Throttling: Rate exceeded")
    found = failure("apply", 1, [Diagnostic(f"{number}", text) for number, text in enumerate(texts)])
    assert isinstance(found, Retryable)
    assert (found.runbook, str(found)) == ("aws-capacity", "terraform apply: 1")


@pytest.mark.parametrize(
    ("text", "runbook"),
    [
        ("InvalidParameterCombination: Cannot find version 17.5 for aurora-postgresql", "engine-version"),
        ("Cannot upgrade aurora-postgresql from 17.7 to 17.5", "engine-version"),
        ("InvalidParameterValue: The engine version 17.5 is no longer available", "engine-version"),
        ("unexpected state 'inaccessible-encryption-credentials-recoverable'", "kms-key"),
        ("unexpected state 'incompatible-network', wanted 'available'", "terraform-configuration"),
        ("Aurora Serverless v2 minimum capacity 0 isn't supported", "terraform-configuration"),
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

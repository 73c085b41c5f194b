"""Who acts next, for what AWS answers to our own calls."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.workers.providers import aws


def meet(error: Exception) -> ControlPlaneError:
    with pytest.raises(ControlPlaneError) as caught, aws.errors("describing cluster c-x"):
        raise error
    return caught.value


def answer(code: str, status: int, message: str = "") -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "DescribeDBClusters",
    )


@pytest.mark.parametrize(
    ("code", "status", "runbook"),
    [
        ("InsufficientDBClusterCapacityFault", 403, "aws-capacity"),
        ("InsufficientStorageClusterCapacity", 400, "aws-capacity"),
        ("RequestTimeTooSkewed", 403, "clock-skew"),
        ("RequestExpired", 400, "clock-skew"),
        ("RequestTimeout", 400, "aws-unavailable"),
        ("PaginationTokenExpiredException", 400, "aws-unavailable"),
        ("DependencyViolation", 400, "aws-settling"),
        ("Throttling", 400, "aws-unavailable"),
        ("RequestLimitExceeded", 503, "aws-unavailable"),
        ("TooManyRequestsException", 429, "aws-unavailable"),
        ("InternalFailure", 500, "aws-unavailable"),
        ("SomethingUnheardOf", 502, "aws-unavailable"),
        ("InvalidDBClusterStateFault", 400, "aws-settling"),
        ("KMSInvalidStateException", 400, "kms-key"),
        ("ExpiredTokenException", 400, "aws-credentials"),
    ],
)
def test_what_time_mends(code: str, status: int, runbook: str) -> None:
    found = meet(answer(code, status))
    assert isinstance(found, Retryable)
    assert found.runbook == runbook
    assert str(found) == f"describing cluster c-x: AWS answered {code}"


@pytest.mark.parametrize(
    ("code", "status", "runbook"),
    [
        ("DBClusterQuotaExceededFault", 403, "aws-quota"),
        ("LimitExceededException", 400, "aws-quota"),
        ("AccessDeniedException", 400, "aws-credentials"),
        ("SignatureDoesNotMatch", 403, "aws-credentials"),
        ("InvalidClientTokenId", 403, "aws-credentials"),
        ("InvalidParameterValue", 400, "aws-request"),
        ("IncompleteSignature", 400, "aws-request"),
    ],
)
def test_what_a_person_must_mend(code: str, status: int, runbook: str) -> None:
    found = meet(answer(code, status))
    assert isinstance(found, NeedsHuman)
    assert found.runbook == runbook


def test_a_signature_that_has_only_expired_is_a_clocks_fault() -> None:
    late = "Signature expired: 20261127T010000Z is now earlier than 20261127T011000Z"
    found = meet(answer("SignatureDoesNotMatch", 403, late))
    assert isinstance(found, Retryable)
    assert found.runbook == "clock-skew"


@pytest.mark.parametrize(
    ("error", "kind", "runbook"),
    [
        (ReadTimeoutError(endpoint_url="https://rds"), Retryable, "aws-unavailable"),
        (CredentialRetrievalError(provider="container", error_msg="late"), Retryable, "aws-credentials"),
        (NoCredentialsError(), NeedsHuman, "aws-credentials"),
        (ParamValidationError(report="canary"), NeedsHuman, "aws-request"),
    ],
)
def test_what_never_reached_aws(error: BotoCoreError, kind: type[ControlPlaneError], runbook: str) -> None:
    found = meet(error)
    assert type(found) is kind
    assert getattr(found, "runbook", None) == runbook

"""AWS clients with bounded time, and AWS's errors as ours.

Region, credentials and endpoint come from the standard environment (boto3 reads AWS_REGION and
AWS_ENDPOINT_URL as the Terraform AWS provider does), so that the same code speaks to AWS and to the
emulator. A call ends within `TIMEOUT` seconds a try and three tries ("standard" retries back off and
count throttling); the engine's own backoff does the rest.

An error's message keeps the operation and AWS's code, never the request: a request may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable

TIMEOUT = 10.0  # seconds for connecting and for each read
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer of AWS's means: `pattern` in its code and text. `after`: seconds to wait at least before
    the same call may succeed, 0 where the operation's backoff will do; None where a person acts next.
    `runbook`: for that person, or for whoever is notified that it has lasted."""

    pattern: re.Pattern[str]
    runbook: str
    after: float | None


# The first that fits counts, so a code stands before those that its text would fit as well. Codes are from
# the "Common Errors" and "Errors" of the services' API References, texts as provider and SDK quote them.
MEANINGS = (
    Meaning(
        re.compile(
            r"Throttl|RequestLimitExceeded|TooManyRequests|SlowDown|PriorRequestNotComplete"
            r"|RequestThrottled|Rate exceeded|StatusCode: 429"
        ),
        "aws-unavailable",
        30,
    ),
    # Where credentials come from (a container's or an instance's endpoint) did not answer in time.
    Meaning(
        re.compile(
            r"(?:failed to refresh cached credentials|No valid credential sources)"
            r".*(?:deadline exceeded|Client\.Timeout|i/o timeout|connection re(?:fused|set)"
            r"|StatusCode: 5\d\d)",
            re.DOTALL,
        ),
        "aws-credentials",
        10,
    ),
    Meaning(
        re.compile(
            r"RequestTimeTooSkewed|RequestExpired|RequestInTheFuture"
            r"|Signature expired|Signature not yet current"
        ),
        "clock-skew",
        60,
    ),
    # RDS makes its role at an account's first use of it, and refuses until the role is there.
    Meaning(re.compile(r"permission to create service linked role"), "aws-credentials", 60),
    Meaning(re.compile(r"QuotaExceeded|LimitExceeded"), "aws-quota", None),
    Meaning(re.compile(r"ExpiredToken"), "aws-credentials", 0),
    Meaning(
        re.compile(
            r"AccessDenied|UnauthorizedOperation|UnrecognizedClient|InvalidClientTokenId|SignatureDoesNotMatch"
            r"|AuthFailure|No valid credential sources|failed to refresh cached credentials"
        ),
        "aws-credentials",
        None,
    ),
    Meaning(
        re.compile(
            r"Cannot find version \S+ for|Cannot upgrade \S+ from \S+ to|InvalidDBEngineVersion"
            r"|[Ee]ngine version [^\n]{0,60}(?:isn't|is not|no longer) (?:available|offered|supported|valid)"
        ),
        "engine-version",
        None,
    ),
    Meaning(re.compile(r"inaccessible-encryption-credentials"), "kms-key", None),
    Meaning(re.compile(r"KMSKeyNotAccessible|KMSInvalidState"), "kms-key", 0),
    Meaning(re.compile(r"Insufficient\w*Capacity"), "aws-capacity", 120),
    Meaning(re.compile(r"DependencyViolation"), "aws-settling", 60),
    Meaning(
        re.compile(
            r"NoSuchEntity|InvalidPrincipal|MalformedPolicy|ConcurrentModification|OperationAborted"
            r"|Invalid\w*State|unexpected state '(?:backing-up|configuring-|maintenance|modifying|rebooting"
            r"|renaming|resetting-master-credentials|upgrading)"
        ),
        "aws-settling",
        0,
    ),
    Meaning(
        re.compile(
            r"InternalFailure|InternalError|InternalServiceError|ServiceUnavailable|RequestTimeout"
            r"|PaginationTokenExpired|IDPCommunicationError"
        ),
        "aws-unavailable",
        0,
    ),
)


def client(service: str, *, region: str, timeout: float = TIMEOUT, attempts: int = ATTEMPTS) -> Any:
    """A boto3 client of `service`; `timeout` in seconds, for each of `attempts` tries."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        region_name=region,
        config=Config(
            connect_timeout=timeout,
            read_timeout=timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
            s3={"addressing_style": "auto"},
        ),
    )


def code(error: ClientError) -> str:
    """AWS's error code, such as "ResourceNotFoundException"."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def translate(error: ClientError | BotoCoreError, action: str) -> ControlPlaneError:
    """The error of ours that says who acts next; `action` as "reading secret t-…"."""
    if isinstance(error, ClientError):
        return _refusal(error, action)
    message = f"{action}: {type(error).__name__}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
        return NeedsHuman(message, runbook="aws-credentials")
    if isinstance(error, ParamValidationError):
        return NeedsHuman(message, runbook="aws-request")
    if isinstance(error, CredentialRetrievalError | MetadataRetrievalError):
        return Retryable(message, runbook="aws-credentials")
    return Retryable(message, runbook="aws-unavailable")


def _refusal(error: ClientError, action: str) -> ControlPlaneError:
    name = code(error)
    message = f"{action}: AWS answered {name}"
    text = f"{name}: {error.response.get('Error', {}).get('Message', '')}"
    known = next((known for known in MEANINGS if known.pattern.search(text)), None)
    if known is not None and known.after is not None:
        return Retryable(message, after=known.after or None, runbook=known.runbook)
    if known is not None:
        return NeedsHuman(message, runbook=known.runbook)
    if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500:
        return Retryable(message, runbook="aws-unavailable")
    return NeedsHuman(message, runbook="aws-request")


@contextmanager
def errors(action: str) -> Iterator[None]:
    """Whatever AWS raises inside leaves as an error of ours.

    The cause keeps AWS's code and text; a validation error quotes the values it refused, which may
    be a secret's, so that one leaves without its cause.
    """
    try:
        yield
    except ParamValidationError as error:
        raise translate(error, action) from None
    except (ClientError, BotoCoreError) as error:
        raise translate(error, action) from error
    except ResponseParserError as error:  # a page of a proxy or a load balancer, not AWS's answer
        raise Retryable(f"{action}: the answer can't be read", runbook="aws-unavailable") from error

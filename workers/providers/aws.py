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
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable

TIMEOUT = 10.0  # seconds for connecting and for each read
ATTEMPTS = 3

THROTTLED = re.compile(
    r"Throttl|RequestLimitExceeded|TooManyRequests|SlowDown|PriorRequestNotComplete|RequestThrottled"
)
QUOTA = re.compile(r"QuotaExceeded|LimitExceeded")
SETTLING = re.compile(r"NoSuchEntity|InvalidPrincipal|MalformedPolicy|ConcurrentModification|Invalid\w*State")
CREDENTIALS = re.compile(
    r"AccessDenied|UnauthorizedOperation|UnrecognizedClient|InvalidClientTokenId|SignatureDoesNotMatch|AuthFailure"
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
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return _refusal(code(error), status, action)
    message = f"{action}: {type(error).__name__}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
        return NeedsHuman(message, runbook="aws-credentials")
    if isinstance(error, ParamValidationError):
        return NeedsHuman(message, runbook="aws-request")
    return Retryable(message)


def _refusal(name: str, status: int, action: str) -> ControlPlaneError:
    message = f"{action}: AWS answered {name}"
    if THROTTLED.search(name):  # before QUOTA: RequestLimitExceeded is throttling
        return Retryable(message, after=15)
    if QUOTA.search(name):
        return NeedsHuman(message, runbook="aws-quota")
    if name.startswith("ExpiredToken") or SETTLING.search(name) or status >= 500:
        return Retryable(message)
    return NeedsHuman(message, runbook="aws-credentials" if CREDENTIALS.search(name) else "aws-request")


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
        raise Retryable(f"{action}: the answer can't be read") from error

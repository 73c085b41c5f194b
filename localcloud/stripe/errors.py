"""Refusals in Stripe's error envelope: `{"error": {"type", "code", "message", "param"}}`.

Statuses and codes after Stripe's pages "Errors" and "Error codes".
"""

from __future__ import annotations

from typing import Any


class StripeError(Exception):
    """An answer other than 200."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param

    def envelope(self, request_id: str) -> dict[str, Any]:
        error: dict[str, Any] = {"type": self.kind, "message": str(self)}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": error}


def missing(param: str) -> StripeError:
    return StripeError(f"Missing required param: {param}.", code="parameter_missing", param=param)


def unknown(param: str) -> StripeError:
    return StripeError(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def no_such(noun: str, key: str, *, param: str = "id", status: int = 404) -> StripeError:
    """`status` is 404 for the object in the path, 400 for one that a parameter names."""
    return StripeError(f"No such {noun}: '{key}'", status=status, code="resource_missing", param=param)


def no_route(method: str, path: str) -> StripeError:
    return StripeError(f"Unrecognized request URL ({method}: {path}).", status=404)


def unauthorised(message: str) -> StripeError:
    return StripeError(message, status=401)


def fault(status: int) -> StripeError:
    """What a fault switch answers."""
    if status == 429:
        return StripeError(
            "Request rate limit exceeded. Learn more about rate limits in Stripe's documentation.",
            status=status,
            code="rate_limit",
        )
    kind = "api_error" if status >= 500 else "invalid_request_error"
    return StripeError("An unknown error occurred", status=status, kind=kind)

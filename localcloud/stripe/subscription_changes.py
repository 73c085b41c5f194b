"""What an update, or a creation, may change about a subscription besides its items."""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import payment_methods
from controlplane.localcloud.stripe.account import Account
from controlplane.localcloud.stripe.errors import StripeError, missing
from controlplane.localcloud.stripe.params import Params

PRORATIONS = ("create_prorations", "none", "always_invoice")
PAUSES = ("keep_as_draft", "mark_uncollectible", "void")
FEEDBACK = (
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
)


def apply(account: Account, record: Object, params: Params) -> None:
    """What create and update have in common."""
    record["metadata"] = params.metadata(record["metadata"])
    params.choice("proration_behavior", PRORATIONS)
    params.boolean("off_session")
    if params.has("description"):
        record["description"] = params.string("description", limit=500) or None
    if params.has("collection_method"):
        record["collection_method"] = params.choice(
            "collection_method", ("charge_automatically", "send_invoice")
        )
    if params.has("days_until_due"):
        record["days_until_due"] = params.integer("days_until_due", low=0, high=730)
    method = params.string("default_payment_method")
    if method is not None:
        record["default_payment_method"] = (
            payment_methods.attached(account, method, record["customer"], param="default_payment_method")[
                "id"
            ]
            if method
            else None
        )
    settings = params.object("trial_settings")
    behavior = settings.object("end_behavior") if settings else None
    if behavior is not None:
        record["trial_settings"]["end_behavior"]["missing_payment_method"] = behavior.choice(
            "missing_payment_method", ("create_invoice", "cancel", "pause")
        )
    _apply_pause(record, params)
    _apply_cancellation(account, record, params)


def _apply_pause(record: Object, params: Params) -> None:
    if not params.has("pause_collection"):
        return
    if params.is_empty("pause_collection"):
        record["pause_collection"] = None
        return
    pause = params.object("pause_collection")
    if pause is not None:
        behavior = pause.choice("behavior", PAUSES)
        if behavior is None:
            raise missing(pause.name("behavior"))
        record["pause_collection"] = {"behavior": behavior, "resumes_at": pause.integer("resumes_at")}


def _apply_cancellation(account: Account, record: Object, params: Params) -> None:
    at_end, moment = params.boolean("cancel_at_period_end"), params.string("cancel_at")
    if at_end and moment:
        raise StripeError("You may only specify one of these parameters: cancel_at_period_end, cancel_at.")
    details = cancellation(params)
    if at_end is None and moment is None:
        record["cancellation_details"].update(details)
        return
    scheduled = bool(at_end or moment)
    record.update(
        cancel_at_period_end=bool(at_end),
        cancel_at=future(account, params.integer("cancel_at") or 0, "cancel_at") if moment else None,
        canceled_at=account.clock.stamp() if scheduled else None,
        cancellation_details={
            **record["cancellation_details"],
            "reason": "cancellation_requested" if scheduled else None,
            **details,
        },
    )


def cancellation(params: Params) -> dict[str, Any]:
    details = params.object("cancellation_details")
    if details is None:
        return {}
    found = {"comment": details.string("comment"), "feedback": details.choice("feedback", FEEDBACK)}
    return {key: value for key, value in found.items() if value is not None}


def future(account: Account, moment: int, param: str) -> int:
    if moment <= account.clock.now():
        raise StripeError(f"Invalid timestamp: must be in the future: {moment}", param=param)
    return moment

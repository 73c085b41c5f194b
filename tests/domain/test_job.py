"""What becomes of a job that failed, by who acts next, and how urgent and what about it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Conflict, NeedsHuman, Pending, Retryable
from controlplane.domain.job import (
    ATTEMPTS_UNTIL_ATTENTION,
    BACKOFF_CAP,
    CLOCK,
    PERIODIC_OBSERVATION,
    TERMS,
    UNEXPECTED_UNTIL_PARKED,
    Job,
    JobKind,
    Lane,
    Priority,
    Trouble,
    backoff,
    judge,
    priority_of,
)

ENDLESS = [kind for kind, terms in TERMS.items() if terms.endless]
FIRST = 1.0  # seconds of backoff after the first attempt, without jitter


def job(kind: JobKind = JobKind.TENANT, *, attempts: int = 1, causes: Any = ()) -> Job:
    return Job(7, kind, "t-aaaaaaaaaaaa", Lane.QUICK, 1, "w", attempts, list(causes), orphan=False)


def failed(error: Exception, kind: JobKind = JobKind.TENANT, *, attempts: int = 1) -> Trouble:
    """Without the error itself, which every judgement carries."""
    found = judge(error, job(kind, attempts=attempts), jitter=0.0)
    assert found.error is error
    return replace(found, error=None)


# ------------------------------------------------------------------------------------------ causes


def test_a_job_is_of_its_first_cause_and_without_one_of_the_clock() -> None:
    asked = job(causes=[{"reason": "paid", "actor": "billing"}, {"reason": "moved", "actor": "anna"}])
    assert (asked.reason, asked.actor) == ("paid", "billing")
    assert (job().reason, job().actor) == (PERIODIC_OBSERVATION, CLOCK)


def test_what_a_person_asked_for_is_told_from_the_rest() -> None:
    paid, anna, bert = ({"reason": "why", "actor": actor} for actor in ("billing", "anna", "bert"))
    assert job(causes=[paid, anna, bert]).asked == anna
    assert (job(causes=[paid]).asked, job().asked) == (None, None)


def test_who_pays_comes_first_and_whoever_is_none_of_ours_is_a_person() -> None:
    assert [priority_of(actor) for actor in ("billing", "anna", "rollout", "pool", CLOCK)] == [
        Priority.PAID,
        Priority.ASKED,
        Priority.ROLLOUT,
        Priority.ROUTINE,
        Priority.ROUTINE,
    ]


# ------------------------------------------------------------------------------------------- judge


def test_waiting_is_no_attempt_and_lasts_as_long_as_is_known() -> None:
    assert failed(Pending("soon", after=40.0)) == Trouble("soon", 40.0, counts=False)
    assert failed(Pending("soon")) == Trouble("soon", FIRST, counts=False)


def test_what_time_may_repair_is_tried_again_after_the_longer_of_backoff_and_what_was_asked_for() -> None:
    assert failed(Retryable("busy", after=90.0)) == Trouble("busy", 90.0)
    assert failed(Retryable("busy", after=0.1)) == Trouble("busy", FIRST)
    assert failed(Retryable("busy")) == Trouble("busy", FIRST)


def test_a_tenants_job_is_never_given_up_and_a_person_is_told_once_it_has_lasted() -> None:
    before, after = ATTEMPTS_UNTIL_ATTENTION - 1, ATTEMPTS_UNTIL_ATTENTION
    assert failed(Retryable("busy"), attempts=before).runbook is None
    lasting = failed(Retryable("busy"), attempts=after)
    assert (lasting.after, lasting.runbook) == (BACKOFF_CAP / 2, "retrying")
    assert failed(Retryable("busy", runbook="aws-quota"), attempts=after).runbook == "aws-quota"
    assert failed(Retryable("busy", runbook="aws-quota"), attempts=before).runbook is None


def test_a_kind_with_attempts_is_given_up_after_that_many() -> None:
    limit = TERMS[JobKind.EXPORT].attempts
    assert limit is not None
    assert failed(Retryable("busy"), JobKind.EXPORT, attempts=limit - 1) == Trouble("busy", 8.0)
    assert failed(Retryable("busy"), JobKind.EXPORT, attempts=limit) == Trouble("busy", None, "retrying")


def test_what_only_a_person_can_decide_is_given_up_with_its_page() -> None:
    assert failed(NeedsHuman("look", runbook="lost-secret")) == Trouble("look", None, "lost-secret")
    assert failed(Conflict("no")) == Trouble("no", None, "refused")


def test_a_fault_of_our_own_is_tried_some_times_and_tells_nothing_of_its_text() -> None:
    assert failed(ZeroDivisionError("secret"), attempts=UNEXPECTED_UNTIL_PARKED - 1) == Trouble(
        "unexpected ZeroDivisionError", 8.0
    )
    assert failed(ZeroDivisionError("secret"), attempts=UNEXPECTED_UNTIL_PARKED) == Trouble(
        "unexpected ZeroDivisionError", None, "internal-error"
    )


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_kind_is_told_to_a_person_and_goes_on_all_the_same(kind: JobKind) -> None:
    assert failed(NeedsHuman("look", runbook="x"), kind) == Trouble("look", BACKOFF_CAP, "x")
    assert failed(Retryable("busy", after=5.0), kind).after == 5.0


# ----------------------------------------------------------------------------------------- backoff


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_to_its_cap_and_is_spread_over_its_upper_half(attempts: int, jitter: float) -> None:
    ceiling = min(BACKOFF_CAP, 2.0 ** min(max(attempts, 1), 20))
    assert ceiling / 2 <= backoff(attempts, jitter=jitter) <= ceiling
    assert backoff(attempts, jitter=0.5) == ceiling * 0.75

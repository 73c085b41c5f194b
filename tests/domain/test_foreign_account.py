"""Whose account an event is about: Connect's and an organisation's name another one's."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.billing import foreign_account

OURS = "acct_ours"


@pytest.mark.parametrize(
    "event", [{}, {"account": None, "context": None}, {"account": OURS}, {"context": f"org_1/{OURS}"}, 7]
)
def test_what_names_none_or_ours_is_ours(event: Any) -> None:
    assert foreign_account(event, OURS) is None


@pytest.mark.parametrize("field", ["account", "context"])
@pytest.mark.parametrize("named", ["acct_other", f"{OURS}/acct_other", 7, ["acct_ours"]])
def test_what_names_another_says_which_field_and_what_was_expected(field: str, named: Any) -> None:
    reason = foreign_account({field: named}, OURS)
    assert reason is not None
    assert reason.startswith(f"{field}: expected none or {OURS}, got ")


@pytest.mark.parametrize("field", ["account", "context"])
def test_where_our_own_is_not_known_whoever_is_named_is_another(field: str) -> None:
    reason = foreign_account({field: OURS}, None)
    assert reason is not None
    assert "CONTROLPLANE_STRIPE_ACCOUNT may name" in reason
    assert foreign_account({}, None) is None

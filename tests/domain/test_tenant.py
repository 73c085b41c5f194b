"""The phase that people see, and a spec's way through the registry."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.tenant import Lifecycle, Phase, TenantSpec, phase_of

SPEC = TenantSpec(Lifecycle.ACTIVE, "team", "active")
flags = st.booleans()


@pytest.mark.parametrize(
    ("lifecycle", "reconciled", "ever_ready", "started", "phase"),
    [
        (Lifecycle.ACTIVE, False, False, False, Phase.PENDING),
        (Lifecycle.ACTIVE, False, False, True, Phase.PROVISIONING),
        (Lifecycle.ACTIVE, True, True, True, Phase.ACTIVE),
        (Lifecycle.ACTIVE, False, True, True, Phase.ACTIVE),
        (Lifecycle.SUSPENDED, True, True, True, Phase.SUSPENDED),
        (Lifecycle.SUSPENDED, True, False, True, Phase.SUSPENDED),
        (Lifecycle.SUSPENDED, False, True, True, Phase.ACTIVE),
        (Lifecycle.SUSPENDED, False, False, True, Phase.PROVISIONING),
        (Lifecycle.CLOSED, False, True, True, Phase.CLOSING),
        (Lifecycle.CLOSED, True, True, True, Phase.CLOSED),
    ],
)
def test_a_phase_is_what_is_so_and_not_what_is_asked_for(
    lifecycle: Lifecycle, reconciled: bool, ever_ready: bool, started: bool, phase: Phase
) -> None:
    spec = SPEC.with_lifecycle(lifecycle)
    assert phase_of(spec, reconciled=reconciled, ever_ready=ever_ready, started=started) is phase


@given(st.sampled_from(Lifecycle), flags, flags, flags)
def test_what_was_purged_is_nothing_else(lifecycle: Lifecycle, a: bool, b: bool, c: bool) -> None:
    spec = SPEC.with_lifecycle(lifecycle)
    assert phase_of(spec, reconciled=a, ever_ready=b, started=c, purged=True) is Phase.PURGED


moments = st.none() | st.datetimes(timezones=st.just(UTC))


@given(
    st.builds(
        TenantSpec,
        lifecycle=st.sampled_from(Lifecycle),
        plan=st.text(),
        subscription_status=st.text(),
        quantity=st.integers(),
        custom_domains=st.lists(st.text()).map(tuple),
        addons=st.dictionaries(st.text(), st.integers()),
        trial_ends_at=moments,
        grace_ends_at=moments,
        closes_at=moments,
    )
)
def test_a_spec_comes_back_from_the_registry_as_it_was(spec: TenantSpec) -> None:
    assert TenantSpec.from_json(spec.to_json()) == spec

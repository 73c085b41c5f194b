"""Who is when, how many at once, and when it stops: properties and the edges of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Invalid
from controlplane.domain.rollout import (
    LEADS_TO,
    OPEN,
    Action,
    Candidate,
    FleetTenant,
    RolloutState,
    Spec,
    Wave,
    Window,
    budget_exceeded,
    estimate,
    is_open,
    last_wave,
    next_batch,
    opens_at,
    waves,
)

fleets = st.integers(0, 60).map(lambda n: [FleetTenant(f"t-{i:012d}", f"slug-{i}") for i in range(n)])
shares = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5, unique=True).map(sorted)


@given(fleets, shares, st.text(max_size=4))
def test_every_tenant_is_in_one_wave_and_shares_are_of_the_whole_fleet(
    fleet: list[FleetTenant], parts: list[float], seed: str
) -> None:
    spec = Spec(waves=tuple(Wave(share=part) for part in parts))
    placed = waves(fleet, spec, seed=seed)
    assert set(placed) == {tenant.tenant_id for tenant in fleet}
    assert all(0 <= wave <= last_wave(spec) for wave in placed.values())
    for number, part in enumerate(parts[:-1]):
        reached = sum(wave <= number for wave in placed.values())
        assert part * len(fleet) <= reached < part * len(fleet) + 1
    assert placed == waves(list(reversed(fleet)), spec, seed=seed)


def test_named_canaries_are_first_and_count_towards_the_shares() -> None:
    fleet = [FleetTenant(f"t-{i:012d}", f"slug-{i}") for i in range(10)]
    spec = Spec(waves=(Wave(tenants=("slug-7", "t-000000000003")), Wave(share=0.5)))
    placed = waves(fleet, spec, seed="0002")
    assert [tenant for tenant, wave in placed.items() if wave == 0] == ["t-000000000003", "t-000000000007"]
    assert sorted(placed.values()) == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert placed != waves(fleet, spec, seed="0003")


def test_a_wave_that_names_a_stranger_is_refused() -> None:
    with pytest.raises(Invalid, match="waves: expected tenants that are to be migrated, got 'nobody'"):
        waves([], Spec(waves=(Wave(tenants=("nobody",)),)), seed="x")


clusters = st.sampled_from(["c-a", "c-b", "c-c"])


@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.dictionaries(clusters, st.integers(0, 12)),
    st.lists(clusters, max_size=30),
    st.integers(0, 20),
)
def test_never_more_at_once_than_allowed_and_never_fewer_than_possible(
    concurrency: int, per_cluster: int, running: dict[str, int], waiting: list[str], room: int
) -> None:
    spec = Spec(concurrency=concurrency, per_cluster=per_cluster)
    candidates = [Candidate(f"t-{i}", cluster) for i, cluster in enumerate(waiting)]
    batch = next_batch(spec, running, candidates, room=room)
    assert len(batch) <= max(0, min(room, concurrency - sum(running.values())))
    load = dict(running)
    for candidate in batch:
        load[candidate.cluster_id] = load.get(candidate.cluster_id, 0) + 1
        assert load[candidate.cluster_id] <= per_cluster
    left = [c for c in candidates if c not in batch and load.get(c.cluster_id, 0) < per_cluster]
    full = len(batch) >= min(room, concurrency - sum(running.values()))
    assert full or not left


def test_with_a_pace_one_is_started_at_a_time() -> None:
    candidates = [Candidate(f"t-{i}", "c-a") for i in range(5)]
    assert len(next_batch(Spec(pace=1.0), {}, candidates, room=5)) == 1


@pytest.mark.parametrize(
    ("failures", "ratio", "members", "failed", "canaries", "halts"),
    [
        (0, 0.0, 500, 0, 0, False),
        (0, 0.0, 500, 1, 0, True),
        (3, 0.0, 500, 3, 0, False),
        (3, 0.0, 500, 4, 0, True),
        (3, 0.02, 500, 10, 0, False),
        (3, 0.02, 500, 11, 0, True),
        (3, 0.02, 10, 3, 0, False),
        (100, 1.0, 500, 1, 1, True),
    ],
)
def test_the_budget_is_the_larger_of_count_and_ratio_and_canaries_have_none(
    failures: int, ratio: float, members: int, failed: int, canaries: int, halts: bool
) -> None:
    spec = Spec(failures=failures, failure_ratio=ratio)
    over = budget_exceeded(spec, members=members, failed=failed, failed_canaries=canaries)
    assert (over is not None) is halts


def test_what_has_ended_stays_ended_and_what_is_open_can_be_aborted() -> None:
    for action, state in product(Action, RolloutState):
        allowed = LEADS_TO[action].sources
        if state not in OPEN:
            assert state not in allowed
        assert LEADS_TO[action] is not state or state not in allowed
    assert set(RolloutState.ABORTED.sources) == OPEN


@given(
    st.sampled_from(
        ["mon 01:00-02:00 UTC", "mon-fri 22:00-05:30 Europe/Berlin", "sat-sun 00:00-23:59 UTC", "fri-mon 9:0"]
    )
)
def test_a_window_is_read_or_refused(text: str) -> None:
    if text.endswith("9:0"):
        with pytest.raises(Invalid, match="windows: expected windows like"):
            Window(text)
    else:
        assert Window(text).text == text


@pytest.mark.parametrize("hours", ["24:00-05:00", "22:00-24:01", "22:60-05:00"])
def test_hours_that_no_clock_shows_are_refused(hours: str) -> None:
    with pytest.raises(Invalid, match="windows: expected windows like"):
        Window(f"mon {hours} UTC")


def test_a_window_may_last_until_midnight() -> None:
    window = Window("fri 22:00-24:00 UTC")
    assert window.contains(datetime(2026, 11, 27, 23, 59, tzinfo=UTC))
    assert not window.contains(datetime(2026, 11, 28, 0, 0, tzinfo=UTC))


@given(st.integers(0, 365 * 86400))
def test_the_opening_is_the_next_minute_that_is_open(second: int) -> None:
    windows = (Window("mon-fri 22:00-05:30 Europe/Berlin"), Window("sun 12:00-13:00 UTC"))
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    opening = opens_at(windows, now)
    assert is_open(windows, opening)
    assert opening == now or not is_open(windows, opening - timedelta(minutes=1))


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    window = Window("fri 22:00-02:00 Europe/Berlin")  # in winter one hour ahead of UTC
    assert window.contains(datetime(2026, 11, 27, 21, 30, tzinfo=UTC))
    assert window.contains(datetime(2026, 11, 28, 0, 59, tzinfo=UTC))
    assert not window.contains(datetime(2026, 11, 28, 1, 0, tzinfo=UTC))
    assert not window.contains(datetime(2026, 11, 28, 21, 30, tzinfo=UTC))


def test_no_window_is_always_open() -> None:
    assert is_open((), datetime(2026, 11, 27, tzinfo=UTC))


@given(
    st.builds(
        Spec,
        concurrency=st.integers(1, 256),
        failures=st.integers(0, 99),
        failure_ratio=st.floats(0, 1),
        pace=st.floats(0, 60),
        windows=st.sampled_from([(), (Window("mon 01:00-02:00 UTC"),)]),
        waves=st.sampled_from([(Wave(share=0.25),), (Wave(tenants=("a", "b")), Wave(share=1.0))]),
    )
)
def test_a_spec_survives_its_json(spec: Spec) -> None:
    assert Spec.from_json(spec.to_json()) == spec


def test_an_estimate_is_the_mean_over_what_runs_at_once() -> None:
    spec = Spec(concurrency=4, waves=(Wave(share=0.5), Wave(share=1.0)), wave_pause=10)
    found = estimate([1.0, 3.0], [0.2, 0.05], members=100, spec=spec)
    assert (found.seconds, found.longest_lock) == (60.0, 0.2)


# -------------------------------------------------------------------------------------------- spec


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"concurrency": 0}, "concurrency: expected a number, 1 to 256, got 0"),
        ({"concurrency": 257}, "concurrency: expected a number, 1 to 256, got 257"),
        ({"attempts": True}, "attempts: expected a number, 1 to 20, got true"),
        ({"pace": "1"}, "pace: expected a number, 0 to 3600, got '1'"),
        ({"failures": 1.5}, "failures: expected a whole number, got 1.5"),
        ({"waves": ()}, "waves: expected 1 to 20 of them, got 0"),
        ({"waves": (Wave(tenants=("a",)),) * 21}, "waves: expected 1 to 20 of them, got 21"),
        ({"waves": (Wave(share=0.5), Wave(share=0.1))}, "waves: expected percentages that rise"),
        (
            {"waves": (Wave(share=0.5), Wave(tenants=("a",)), Wave(share=0.5))},
            "waves: expected percentages that rise",
        ),
    ],
)
def test_a_spec_out_of_its_bounds_is_refused_by_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Invalid) as refused:
        Spec(**fields)
    assert str(refused.value).startswith(named)


def test_waves_of_names_may_stand_anywhere_between_shares_that_rise() -> None:
    names = Wave(tenants=("acme",))
    assert len(Spec(waves=(names, Wave(share=0.1), names, Wave(share=1.0))).waves) == 4
    assert Spec(waves=(names,) * 20).waves[-1] == names


@pytest.mark.parametrize("name", ["waves", "windows"])
@pytest.mark.parametrize("value", ["5%", [5], None, ["5%", None]])
def test_lists_in_a_request_are_lists_of_texts(name: str, value: object) -> None:
    with pytest.raises(Invalid, match=f"^{name}: expected a list of texts"):
        Spec.from_json({name: value})


def test_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(Invalid, match=r"^speed: expected one of attempts, concurrency"):
        Spec.from_json({"speed": 1})

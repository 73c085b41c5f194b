"""What a step is about, as people read it."""

from __future__ import annotations

import pytest

from controlplane.domain.steps import Step, StepName


@pytest.mark.parametrize(
    ("target", "placement", "label"),
    [
        ("", None, ""),
        ("a.z", None, "a.z"),
        ("", 2, "placement 2"),
        ("a.z", 2, "a.z, placement 2"),
    ],
)
def test_a_step_is_about_its_target_and_the_placement_where_that_is_another(
    target: str, placement: int | None, label: str
) -> None:
    assert Step(StepName.PUBLISH, "why", target, placement).label == label

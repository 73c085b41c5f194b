"""Whatever stands in somebody's JSON can be quoted: short, printable, storable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.safe_repr import safe_repr

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("acme", "'acme'"),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 81, f"'{'x' * 80}'…"),
        ("a\0\ud800é", r"'a\x00\ud800\xe9'"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-0.5, "-0.5"),
        (2**53, "9007199254740992"),
        (2**53 + 1, "a huge number"),
        (-(10**400), "a huge number"),
        ({"a": 1}, "an object"),
        (None, "nothing"),
        ([1], "a list"),
        (b"x", "a bytes"),
    ],
)
def test_a_value_is_quoted_as_its_json_would_be_called(value: Any, shown: str) -> None:
    assert safe_repr(value) == shown


@given(anything)
def test_anything_is_quoted_short_printable_and_storable(value: Any) -> None:
    shown = safe_repr(value)
    assert len(shown) <= 10 * 80 + 3
    assert shown.isprintable()
    assert shown.encode().decode() == shown

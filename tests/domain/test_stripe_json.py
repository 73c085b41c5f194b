"""Reading Stripe's objects of any version, and nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.stripe_json import (
    ANY,
    Unparseable,
    dig,
    id_or_none,
    parsed,
    read_id,
    read_optional_id,
    read_text,
)


def test_a_path_ends_where_there_is_no_object() -> None:
    whole = {"a": {"b": 1}, "c": [1]}
    assert [dig(whole, "a", "b"), dig(whole), dig(whole, "a", "x", "y"), dig(whole, "c", "0")] == [
        1,
        whole,
        None,
        None,
    ]
    assert dig(7, "a") is None


def test_a_body_that_is_no_json_is_none() -> None:
    assert parsed(b'{"a": 1}') == {"a": 1}
    assert parsed(b"{") is None
    assert parsed(b"[" * 100_000) is None


@pytest.mark.parametrize("found", ["cus_1", {"id": "cus_1", "object": "customer"}])
def test_an_id_is_read_expanded_or_not(found: Any) -> None:
    assert read_id({"customer": found}, "customer", "cus") == "cus_1"
    assert read_optional_id({"customer": found}, "customer", "cus") == "cus_1"
    assert id_or_none({"customer": found}, "customer", "cus") == "cus_1"


@pytest.mark.parametrize(
    "found", [7, "sub_1", "cus_", "cus_1\n", {"object": "customer"}, ["cus_1"], "cus_" + "x" * 251]
)
def test_what_is_no_id_names_its_field(found: Any) -> None:
    for read in (read_id, read_optional_id):
        with pytest.raises(Unparseable, match=r"^customer: expected a Stripe id \(cus_…\), got ") as refused:
            read({"customer": found}, "customer", "cus")
        assert refused.value.under("subscription").startswith("subscription.customer: expected a Stripe id")
    assert id_or_none({"customer": found}, "customer", "cus") is None


def test_an_id_of_any_form_needs_no_prefix() -> None:
    for found in ("user_7", {"id": "user_7", "object": "customer"}):
        assert read_id({"customer": found}, "customer", ANY) == "user_7"
    for wrong in ("", "a b", "a-b", "x" * 251, 7):
        with pytest.raises(Unparseable, match=r"^customer: expected a Stripe id \(…\), got "):
            read_id({"customer": wrong}, "customer", ANY)


def test_an_id_that_may_be_missing_is_none_there() -> None:
    assert read_optional_id({"customer": None}, "customer", "cus") is None
    assert read_optional_id({}, "customer", "cus") is None
    with pytest.raises(Unparseable):
        read_id({}, "customer", "cus")


def test_a_whole_object_that_is_wrong_is_named_by_its_place() -> None:
    assert Unparseable("", "an object", 7).under("subscription") == "subscription: expected an object, got 7"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("  two\twords\n", "two words"),
        ("a\x00b", "a b"),
        ("a\ud800b", "a b"),
        ("a\u202eb", "a b"),
        ("x" * 300, "x" * 200),
        ("y" * 199 + " z", "y" * 199),
        ("\x07 \n", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_free_text_is_one_line_that_can_be_shown(text: Any, read: str | None) -> None:
    assert read_text(text) == read

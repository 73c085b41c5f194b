"""Each hole is shown on the library first, so that the day it closes one we hear of it."""

import json
import time
from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from controlplane.web.signature import MAX_DEPTH, BadSignature, Malformed, verify_stripe

NOW = 1_800_000_000.0
OLD, NEW = "whsec_old", "whsec_new"
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "type": "invoice.paid",
    "created": 1_799_999_999,
    "livemode": False,
    "data": {"object": {"id": "in_1"}},
}


def sign(text: str, *, secret: str = NEW, at: float = NOW) -> str:
    return stripe.WebhookSignature.generate_signature_header(text, secret, int(at))


def verify(text: str, header: str | None = None, **options: Any) -> dict[str, Any]:
    return verify_stripe(text.encode(), header or sign(text), [NEW, OLD], NOW, **options)


def library(text: str, header: str | None = None, tolerance: int = 300) -> Any:
    return stripe.Webhook.construct_event(
        text, header or sign(text, at=time.time()), NEW, tolerance, api_key="sk_test_1"
    )


def event_text(**changes: Any) -> str:
    return json.dumps(EVENT | changes)


# ------------------------------------------------------------------------------ what is let in


def test_a_signed_event_is_returned_as_plain_json() -> None:
    assert verify(event_text()) == EVENT


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_either_secret_signs_while_one_is_rolled(secret: str) -> None:
    assert verify(event_text(), sign(event_text(), secret=secret)) == EVENT


def test_one_good_signature_among_several_is_enough() -> None:
    time_part, good = sign(event_text()).split(",")
    assert verify(event_text(), f"{time_part},v1={'0' * 64},{good},v0=abc,v2=x+/y==") == EVENT


@pytest.mark.parametrize("away", [-300, 300])
def test_the_tolerance_is_inclusive_on_both_sides(away: int) -> None:
    assert verify(event_text(), sign(event_text(), at=NOW + away)) == EVENT


def test_text_of_every_script_passes() -> None:
    event = EVENT | {"data": {"object": {"name": "Zoë 日本 🎉", "zero": 0.5, "big": 2**63 - 1}}}
    assert verify(json.dumps(event)) == event
    assert verify(json.dumps(event, ensure_ascii=False)) == event


# ------------------------------------------------------------------------------ nobody knows who


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1",
        "v1=" + "0" * 64,
        f"t={int(NOW)}",
        f"t={int(NOW)},",
        f"t={int(NOW)},v1",
        f"t={int(NOW)},v1=",
        f"t={int(NOW)},v0={'0' * 64}",
        f"t={int(NOW)},v1={'0' * 64}",
        f"t={int(NOW)}, v1={'0' * 64}",
        "t=²,v1=0",
        "t=" + "9" * 5000 + ",v1=0",
        "t=-1,v1=0",
        f"t={int(NOW)},v1=\n",
    ],
)
def test_a_header_that_proves_nothing_is_refused(header: str) -> None:
    with pytest.raises(BadSignature, match="Stripe-Signature"):
        verify_stripe(event_text().encode(), header, [NEW], NOW)


def test_a_missing_header_is_refused() -> None:
    with pytest.raises(BadSignature):
        verify_stripe(event_text().encode(), None, [NEW], NOW)


def test_a_secret_that_has_been_retired_no_longer_signs() -> None:
    with pytest.raises(BadSignature, match="none of the endpoint's secrets"):
        verify_stripe(event_text().encode(), sign(event_text(), secret=OLD), [NEW], NOW)


def test_a_changed_body_is_refused() -> None:
    with pytest.raises(BadSignature):
        verify(event_text(livemode=True), sign(event_text()))


def test_an_old_signature_replayed_is_refused() -> None:
    with pytest.raises(BadSignature, match="within 300 s"):
        verify(event_text(), sign(event_text(), at=NOW - 301))


@given(st.text(max_size=200))
def test_no_header_raises_anything_else(header: str) -> None:
    with pytest.raises(BadSignature):
        verify_stripe(event_text().encode(), header, [NEW], NOW)


@given(st.binary(max_size=200))
def test_no_body_passes_with_another_bodys_signature(body: bytes) -> None:
    with pytest.raises(BadSignature):
        verify_stripe(body, sign(event_text()), [NEW, OLD], NOW)


# ------------------------------------------------------------------------------ the library's holes


def test_hole_a_time_in_the_future() -> None:
    assert library(event_text(), sign(event_text(), at=time.time() + 365 * 86_400))
    with pytest.raises(BadSignature, match="within 300 s"):
        verify(event_text(), sign(event_text(), at=NOW + 301))


def test_hole_tolerance_zero_switches_the_check_off() -> None:
    assert library(event_text(), sign(event_text(), at=1), tolerance=0)
    with pytest.raises(ValueError, match="tolerance"):
        verify(event_text(), tolerance=0)


def test_no_secret_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_stripe(event_text().encode(), sign(event_text()), [], NOW)


@pytest.mark.parametrize("secret", ["", " "])
def test_an_empty_secret_signs_nothing(secret: str) -> None:
    with pytest.raises(BadSignature):
        verify_stripe(event_text().encode(), sign(event_text(), secret=secret), [secret], NOW)


def test_hole_a_signature_that_is_not_ascii() -> None:
    header = f"t={int(NOW)},v1=é"
    with pytest.raises(TypeError):
        library(event_text(), header)
    with pytest.raises(BadSignature):
        verify(event_text(), header)


def test_hole_a_body_that_is_not_utf_8() -> None:
    with pytest.raises(UnicodeDecodeError):
        stripe.WebhookSignature.verify_header(b"\xff", sign(""), NEW)
    with pytest.raises(BadSignature, match="UTF-8"):
        verify_stripe(b"\xff", sign(""), [NEW], NOW)


@pytest.mark.parametrize(("text", "error"), [("[]", AttributeError), ("null", AttributeError)])
def test_hole_signed_json_that_is_no_object(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        library(text)
    with pytest.raises(Malformed, match="expected an event object"):
        verify(text)


def nested(depth: int) -> str:
    inner = "[" * depth + "]" * depth
    return event_text().replace('"in_1"', inner)


def test_hole_deep_nesting() -> None:
    with pytest.raises(RecursionError):
        library(nested(200_000))
    with pytest.raises(Malformed, match="nested more than"):
        verify(nested(200_000))


def test_nesting_that_parses_but_breaks_later_is_bounded_too() -> None:
    classes = MAX_DEPTH - 2  # below the event, its data and the object
    assert verify(nested(classes))
    with pytest.raises(Malformed, match="nested more than") as caught:
        verify(nested(classes + 1))
    assert caught.value.event_id == "evt_1"


@pytest.mark.parametrize("escape", [r"\u0000", r"\ud800", r"\udfff", r"\udc00\ud800"])
@pytest.mark.parametrize("template", ['"in_1%s"', '{"x%s": 1}', '["%s"]'])
def test_hole_text_that_postgresql_refuses(escape: str, template: str) -> None:
    text = event_text().replace('"in_1"', template % escape)
    assert library(text)
    with pytest.raises(Malformed, match="NUL or half a surrogate") as caught:
        verify(text)
    assert caught.value.event_id == "evt_1"


def test_a_whole_surrogate_pair_is_text() -> None:
    text = event_text().replace("in_1", r"\ud83c\udf89")
    assert verify(text)["data"]["object"]["id"] == "🎉"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_hole_numbers_that_are_none(number: str) -> None:
    text = event_text().replace('"in_1"', number)
    assert library(text)
    with pytest.raises(Malformed, match="expected JSON"):
        verify(text)


def test_hole_a_number_too_long_to_read() -> None:
    text = event_text().replace('"in_1"', "9" * 5000)
    with pytest.raises(ValueError, match="4300"):
        library(text)
    with pytest.raises(Malformed, match="64 bits"):
        verify(text)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_hole_a_number_beyond_64_bits(number: int) -> None:
    text = event_text().replace('"in_1"', str(number))
    assert library(text)
    with pytest.raises(Malformed, match="64 bits"):
        verify(text)


@pytest.mark.parametrize("text", ["", "{", "\ufeff{}", '{"a": "\x00"}', "{'a': 1}"])
def test_a_signed_body_that_is_no_json_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="expected JSON"):
        verify(text)


def test_utf_16_is_not_guessed() -> None:
    text = event_text().encode("utf-16-le").decode()  # each character followed by NUL
    with pytest.raises(Malformed, match="expected JSON"):
        verify(text)


# ------------------------------------------------------------------------------ signed, and no event


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object": "v2.core.event"}, "created: expected a time"),
        ({"object": None}, "object: expected event"),
        ({"id": "in_1"}, "id: expected evt_…, got 'in_1'"),
        ({"id": 7}, "id: expected evt_…, got 7"),
        ({"type": None}, "type: expected text, got nothing"),
        ({"created": "1"}, "created: expected seconds since 1970, got '1'"),
        ({"created": True}, "created: expected seconds since 1970, got true"),
        ({"created": -1}, "created: expected seconds since 1970, got -1"),
        ({"created": 2**60}, "created: expected seconds since 1970"),
        ({"livemode": 1}, "livemode: expected true or false, got 1"),
        ({"data": []}, "data: expected an object, got a list"),
        ({"data": {}}, "data.object: expected an object, got nothing"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        verify(event_text(**changes))
    assert message in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*EVENT, "more"]), json_values))
def test_signed_json_is_an_event_or_malformed(changes: dict[str, Any]) -> None:
    text = event_text(**changes)
    try:
        event = verify(text)
    except Malformed:
        return
    assert event == json.loads(json.dumps(event, allow_nan=False).encode())
    assert event["id"].startswith("evt_")

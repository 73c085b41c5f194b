"""What an error says where its raiser said nothing, and what it carries for whoever acts next."""

from __future__ import annotations

from controlplane.domain.errors import Invalid, NeedsHuman, Pending, Refused, Retryable


class Unexplained(Refused):
    __doc__ = None


def test_an_error_without_a_message_says_the_first_line_of_its_docstring() -> None:
    assert str(Retryable()) == "An outside system failed in a way that time may repair"
    assert str(NeedsHuman(runbook="x")) == "The engine must not decide this alone"
    assert str(Pending("the cluster is being made")) == "the cluster is being made"


def test_an_error_without_either_says_its_name() -> None:
    """As all do where Python is run with -OO."""
    assert str(Unexplained()) == "Unexplained"


def test_a_value_that_is_not_allowed_is_named_with_what_was_expected_and_quoted_where_there_is_one() -> None:
    error = Invalid("slug", "3 to 30 letters", got="a")
    assert (str(error), error.field) == ("slug: expected 3 to 30 letters, got 'a'", "slug")
    assert str(Invalid("slug", "3 to 30 letters")) == "slug: expected 3 to 30 letters"
    assert str(Invalid("slug", "3 to 30 letters", got="")) == "slug: expected 3 to 30 letters, got ''"


def test_a_hostile_value_is_quoted_once_and_short() -> None:
    assert str(Invalid("slug", "a name", got="\ud800")) == "slug: expected a name, got '\\ud800'"
    assert str(Invalid("slug", "a name", got=["a"] * 9)) == "slug: expected a name, got a list"
    assert len(str(Invalid("slug", "a name", got="x" * 9_000))) < 120

"""The Condition element of an IAM policy, decided for one request.

Pure, and AWS's own words: IAM User Guide, "IAM JSON policy elements: Condition operators", "Set operators
for multi-valued context keys" and "IAM policy elements: Variables and tags". An operator, a key or a form
that is not known here raises Unsupported. Passing over it would open or shut a door that AWS leaves as it
is, and nobody would see it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

Context = Mapping[str, Sequence[str]]
"""Values by condition key, the key in lower case: IAM compares `aws:PrincipalTag/A` and `…/a` alike."""

SINGLE = frozenset(
    {
        "aws:currenttime",
        "aws:epochtime",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:sourceip",
        "aws:userid",
        "aws:username",
        "kms:viaservice",
        "sts:externalid",
        "sts:rolesessionname",
    }
)
MULTIPLE = frozenset({"aws:tagkeys", "sts:transitivetagkeys"})
NAMED = (
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourcetag/",
    "iam:resourcetag/",
    "kms:encryptioncontext:",
    "secretsmanager:resourcetag/",
)
"""Families of keys: what follows names the tag, or the pair of an encryption context."""

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_QUANTIFIERS = ("ForAllValues", "ForAnyValue")


class Unsupported(Exception):
    """The policy says something whose meaning is not known here."""


class Unresolved(Exception):
    """A variable has no value in this request, and no default."""


class Text:
    """A value of a policy with its variables filled in, as parts: (text, whether wildcards in it are some).
    Wildcards in what a variable stands for are ordinary characters."""

    def __init__(self, text: str, context: Context, *, variables: bool) -> None:
        """`variables`: whether the policy's version knows them. Raises Unresolved, Unsupported."""
        self.parts: list[tuple[str, bool]] = []
        last = 0
        for found in _VARIABLE.finditer(text) if variables else ():
            self.parts += [(text[last : found.start()], True), (_value_of(found[1], context), False)]
            last = found.end()
        self.parts.append((text[last:], True))
        if variables and any("${" in part for part, written in self.parts if written):
            raise Unsupported(f"policy variable: a brace is missing in {text!r}")

    def __str__(self) -> str:
        return "".join(text for text, _ in self.parts)

    def like(self, value: str) -> bool:
        return re.fullmatch("".join(_pattern(*part) for part in self.parts), value, re.DOTALL) is not None

    def like_arn(self, value: str) -> bool:
        """Each of the six components is compared by itself ("ARN condition operators")."""
        patterns = self._components()
        values = value.split(":", 5)
        if len(values) != 6:
            return False
        if len(patterns) != 6:
            raise Unsupported(f"{self}: expected an ARN of six components")
        return all(pattern.like(component) for pattern, component in zip(patterns, values, strict=True))

    def _components(self) -> list[Text]:
        found: list[list[tuple[str, bool]]] = [[]]
        for text, written in self.parts:
            for number, piece in enumerate(text.split(":")):
                if number and len(found) < 6:
                    found.append([])
                colon = ":" if number and found[-1] else ""  # the last component may hold some
                found[-1].append((colon + piece, written))
        components = []
        for parts in found:
            component = Text("", {}, variables=False)
            component.parts = parts
            components.append(component)
        return components


@lru_cache(4096)
def _pattern(text: str, written: bool) -> str:
    if not written:
        return re.escape(text)
    return "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in text)


def holds(condition: Mapping[str, Any], context: Context, *, variables: bool) -> bool:
    """Every key of every operator must. Raises Unresolved where all that could be decided does and
    a variable without a value leaves the rest open, Unsupported whatever the others say."""
    results: list[bool | Unresolved] = []
    for operator, clauses in condition.items():
        for key, expected in clauses.items():
            try:
                results.append(_clause(operator, key, listed(expected), context, variables))
            except Unresolved as error:
                results.append(error)
    if False in results:
        return False
    for result in results:
        if isinstance(result, Unresolved):
            raise result
    return True


def listed(value: Any) -> list[str]:
    """One or several, as text: JSON's `true` and `8` are written as such."""
    values = value if isinstance(value, list) else [value]
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in values]


def _clause(written: str, key: str, expected: Sequence[str], context: Context, variables: bool) -> bool:
    quantifier, _, operator = written.rpartition(":")
    lenient = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    if quantifier and quantifier not in _QUANTIFIERS:
        raise Unsupported(f"condition operator {written!r} is not known here")
    name = _known(key, context)
    actual = context.get(name)
    if operator == "Null":
        return _null(written, expected, actual)
    test, negated = _test(written, operator)
    if not quantifier and name in MULTIPLE:
        raise Unsupported(f"condition key {key!r} has several values: expected ForAllValues or ForAnyValue")
    if not quantifier and actual is not None and len(actual) > 1:
        raise Unsupported(
            f"condition key {key!r} has {len(actual)} values here: AWS does not say which counts"
        )
    if not actual or (quantifier and not any(actual)):
        # Not even IfExists makes ForAnyValue true: there is no value of which it could be said.
        return quantifier != "ForAnyValue" and bool(quantifier or lenient or negated)
    texts = [Text(one, context, variables=variables and test in _WITH_VARIABLES) for one in expected]
    met = [any(test(value, text) for text in texts) != negated for value in actual]
    return any(met) if quantifier == "ForAnyValue" else all(met)


def _known(key: str, context: Context) -> str:
    name = key.lower()
    named = name.startswith(NAMED) and name not in NAMED
    if not (named or name in SINGLE or name in MULTIPLE or name in context):
        raise Unsupported(f"condition key {key!r} is not known here")
    return name


def _null(written: str, expected: Sequence[str], actual: Sequence[str] | None) -> bool:
    if written != "Null":
        raise Unsupported(f"condition operator {written!r}: expected Null alone")
    if len(expected) != 1 or expected[0] not in ("true", "false"):
        raise Unsupported(f"condition operator 'Null': expected true or false, got {expected}")
    return (not actual) == (expected[0] == "true")


def _test(written: str, operator: str) -> tuple[Test, bool]:
    positive = _NEGATED.get(operator)
    test = _TESTS.get(positive or operator)
    if test is None:
        raise Unsupported(f"condition operator {written!r} is not known here")
    return test, positive is not None


def _value_of(variable: str, context: Context) -> str:
    if variable in ("*", "?", "$"):
        return variable
    key, comma, default = variable.partition(",")
    name = _known(key.strip(), context)
    values = context.get(name, ())
    if name in MULTIPLE or len(values) > 1:
        raise Unsupported(f"policy variable ${{{variable}}}: expected a key that has one value")
    if values:
        return values[0]
    default = default.strip()
    if not comma:
        raise Unresolved(f"policy variable ${{{variable}}} has no value in this request")
    if len(default) < 2 or not default[0] == default[-1] == "'":
        raise Unsupported(f"policy variable ${{{variable}}}: expected the default in single quotes")
    return default[1:-1]


Test = Callable[[str, Text], bool]
"""Does the request's value meet the policy's?"""


def _equals(value: str, expected: Text) -> bool:
    return value == str(expected)


def _equals_in_any_case(value: str, expected: Text) -> bool:
    return value.casefold() == str(expected).casefold()


def _like(value: str, expected: Text) -> bool:
    return expected.like(value)


def _like_arn(value: str, expected: Text) -> bool:
    return expected.like_arn(value)


def _bool(value: str, expected: Text) -> bool:
    if str(expected).lower() not in ("true", "false"):
        raise Unsupported(f"condition operator 'Bool': expected true or false, got {str(expected)!r}")
    return value.lower() == str(expected).lower()


def _in_network(value: str, expected: Text) -> bool:
    try:
        network = ipaddress.ip_network(str(expected), strict=False)
    except ValueError:
        raise Unsupported(f"IpAddress: expected an address or a network, got {str(expected)!r}") from None
    address = ipaddress.ip_address(value)
    return address.version == network.version and address in network


def _ordered(read: Callable[[str], Any], kind: str, holds: Callable[[int], bool]) -> Test:
    """`holds` of -1, 0 or 1: the request's value is less, the same or more."""

    def test(value: str, expected: Text) -> bool:
        try:
            limit = read(str(expected))
        except (ValueError, InvalidOperation):
            raise Unsupported(f"condition: expected {kind}, got {str(expected)!r}") from None
        try:
            actual = read(value)
        except (ValueError, InvalidOperation):
            return False
        return holds((actual > limit) - (actual < limit))

    return test


def _moment(text: str) -> datetime:
    """ISO 8601, or seconds since 1970."""
    if re.fullmatch(r"\d+(\.\d+)?", text) and len(text) > 4:
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _orders(prefix: str, read: Callable[[str], Any], kind: str) -> Iterable[tuple[str, Test]]:
    meanings: dict[str, Callable[[int], bool]] = {
        "Equals": lambda order: order == 0,
        "LessThan": lambda order: order < 0,
        "LessThanEquals": lambda order: order <= 0,
        "GreaterThan": lambda order: order > 0,
        "GreaterThanEquals": lambda order: order >= 0,
    }
    for name, meaning in meanings.items():
        yield prefix + name, _ordered(read, kind, meaning)


_TESTS: dict[str, Test] = {
    "StringEquals": _equals,
    "StringEqualsIgnoreCase": _equals_in_any_case,
    "StringLike": _like,
    "ArnEquals": _like_arn,
    "ArnLike": _like_arn,
    "Bool": _bool,
    "IpAddress": _in_network,
    **dict(_orders("Numeric", Decimal, "a number")),
    **dict(_orders("Date", _moment, "a date")),
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NotIpAddress": "IpAddress",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
}
_WITH_VARIABLES = frozenset({_equals, _equals_in_any_case, _like, _like_arn})
"""Variables are read in string and ARN operators alone."""

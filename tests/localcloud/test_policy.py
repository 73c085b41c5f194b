"""The evaluation of IAM policies, held to what AWS documents. Each table's source is named above it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from controlplane.localcloud.aws import policy as evaluation
from controlplane.localcloud.aws.policy import Decision, Policy, Principal, Request, decide
from controlplane.localcloud.aws.policy_conditions import Unsupported

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/one"
USER = f"arn:aws:iam::{ACCOUNT}:user/ann"
SECRET = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:placements/p-a/app-AbCdEf"
READ = "secretsmanager:GetSecretValue"
AS_SESSION = Principal(ACCOUNT, SESSION, ROLE)
AS_USER = Principal(ACCOUNT, USER)


def statement(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": READ, "Resource": "*", **elements}


def policy(*statements: dict[str, Any], version: str = "2012-10-17") -> Policy:
    return Policy({"Version": version, "Statement": list(statements)})


ALLOW = policy(statement())
DENY = policy(statement("Deny"))
NOTHING = policy()


def asked(principal: Principal = AS_SESSION, resource: str = SECRET, **context: list[str]) -> Request:
    return Request(principal, READ, resource, context)


def met(condition: dict[str, Any], context: dict[str, list[str]], *, version: str = "2012-10-17") -> bool:
    request = Request(AS_SESSION, READ, SECRET, context)
    return policy(statement(Condition=condition), version=version).allows(request)


def granting(to: Any, effect: str = "Allow", **elements: Any) -> Policy:
    return policy(statement(effect, Principal=to, **elements))


# "Policy evaluation logic", "Evaluating policies within a single account".
@pytest.mark.parametrize(
    ("policies", "decision"),
    [
        ({"identity": []}, "implicitDeny"),
        ({"identity": [NOTHING, ALLOW]}, "allowed"),
        ({"identity": [ALLOW, DENY]}, "explicitDeny"),
        ({"identity": [ALLOW], "boundary": ALLOW}, "allowed"),
        ({"identity": [ALLOW], "boundary": NOTHING}, "implicitDeny"),
        ({"identity": [], "boundary": ALLOW}, "implicitDeny"),
        ({"identity": [ALLOW], "boundary": DENY}, "explicitDeny"),
        ({"identity": [ALLOW], "session": [ALLOW]}, "allowed"),
        ({"identity": [ALLOW], "session": [NOTHING]}, "implicitDeny"),
        ({"identity": [ALLOW], "session": [NOTHING, ALLOW]}, "allowed"),
        ({"identity": [ALLOW], "session": [ALLOW, DENY]}, "explicitDeny"),
        ({"identity": [ALLOW], "boundary": ALLOW, "session": [NOTHING]}, "implicitDeny"),
        ({"identity": [ALLOW], "resource": granting({"AWS": ROLE}, "Deny")}, "explicitDeny"),
        ({"identity": [], "resource": granting({"AWS": ROLE})}, "allowed"),
        ({"identity": [], "resource": granting({"AWS": ROLE}), "boundary": NOTHING}, "implicitDeny"),
        ({"identity": [], "resource": granting({"AWS": ROLE}), "session": [NOTHING]}, "implicitDeny"),
        ({"identity": [], "resource": granting({"AWS": SESSION}), "boundary": NOTHING}, "allowed"),
        ({"identity": [], "resource": granting({"AWS": SESSION}), "boundary": DENY}, "explicitDeny"),
        ({"identity": [], "resource": granting({"AWS": ACCOUNT})}, "implicitDeny"),
        ({"identity": [ALLOW], "resource": granting({"AWS": ACCOUNT})}, "allowed"),
        ({"identity": [], "resource": granting("*")}, "allowed"),
        ({"identity": [ALLOW], "resource": granting({"AWS": USER})}, "allowed"),
    ],
)
def test_a_session_may_what_every_kind_of_policy_lets_it(policies: Any, decision: str) -> None:
    assert decide(asked(), **policies) is Decision(decision)


# The same page: a user who is named by a resource's policy is not limited by its boundary.
@pytest.mark.parametrize(
    ("policies", "decision"),
    [
        ({"identity": [], "resource": granting({"AWS": USER}), "boundary": NOTHING}, "allowed"),
        ({"identity": [], "resource": granting({"AWS": ROLE})}, "implicitDeny"),
    ],
)
def test_a_user_who_is_named_needs_nothing_more(policies: Any, decision: str) -> None:
    assert decide(asked(AS_USER), **policies) is Decision(decision)


# The same page: "Role trust policies and KMS key policies […] must explicitly allow access".
@pytest.mark.parametrize(
    ("to", "identity", "decision"),
    [
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}, [ALLOW], "implicitDeny"),
        ({"Service": "ecs-tasks.amazonaws.com"}, [ALLOW], "implicitDeny"),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, [], "implicitDeny"),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, [ALLOW], "allowed"),
        ({"AWS": [USER, ROLE]}, [], "allowed"),
    ],
)
def test_a_trust_policy_must_grant(to: Any, identity: list[Policy], decision: str) -> None:
    found = decide(asked(), identity=identity, resource=granting(to), resource_must_grant=True)
    assert found is Decision(decision)


# "AWS JSON policy elements: NotPrincipal": who is exempt must be named in every capacity.
@pytest.mark.parametrize(
    ("exempt", "denied"),
    [
        ([ROLE], True),
        ([ROLE, SESSION], True),
        ([ROLE, SESSION, f"arn:aws:iam::{ACCOUNT}:root"], False),
    ],
)
def test_a_denial_to_all_but_some(exempt: list[str], denied: bool) -> None:
    everybody_else = policy(
        {"Effect": "Deny", "NotPrincipal": {"AWS": exempt}, "Action": "*", "Resource": "*"}
    )
    assert everybody_else.denies(asked()) == denied


# "IAM JSON policy elements: Action", "… NotAction", "… Resource", "… NotResource".
@pytest.mark.parametrize(
    ("elements", "applies"),
    [
        ({"Action": "secretsmanager:getsecretvalue"}, True),
        ({"Action": ["s3:*", "secretsmanager:Get*"]}, True),
        ({"Action": "secretsmanager:GetSecret"}, False),
        ({"Action": "secretsmanager:GetSecretV?lue"}, True),
        ({"Resource": SECRET}, True),
        ({"Resource": SECRET.lower()}, False),
        ({"Resource": "arn:aws:secretsmanager:*:*:secret:placements/*"}, True),
        ({"Resource": "arn:aws:secretsmanager:*:*:secret:placements/*/app-??????"}, True),
        ({"Resource": "arn:aws:secretsmanager:*:*:secret:placements/*/other-??????"}, False),
        ({"Resource": ["arn:aws:s3:::x", "arn:aws:secretsmanager:*"]}, True),
        ({"Resource": "arn.aws.secretsmanager.*"}, False),
    ],
)
def test_a_statement_is_of_actions_and_resources(elements: dict[str, Any], applies: bool) -> None:
    assert policy(statement(**elements)).allows(asked()) == applies
    inverted = {f"Not{name}": value for name, value in elements.items()}
    rest = {name: value for name, value in statement().items() if name not in elements}
    assert policy({**rest, **inverted}).allows(asked()) != applies


# "IAM JSON policy elements: Condition operators".
@pytest.mark.parametrize(
    ("operator", "expected", "value", "holds"),
    [
        ("StringEquals", "blue", "blue", True),
        ("StringEquals", "blue", "Blue", False),
        ("StringEquals", "bl*", "blue", False),
        ("StringEquals", ["red", "blue"], "blue", True),
        ("StringEqualsIgnoreCase", "BLUE", "blue", True),
        ("StringNotEquals", "blue", "Blue", True),
        ("StringNotEquals", ["red", "blue"], "blue", False),
        ("StringNotEqualsIgnoreCase", "BLUE", "blue", False),
        ("StringLike", "bl*", "blue", True),
        ("StringLike", "bl?e", "blue", True),
        ("StringLike", "?*", "", False),
        ("StringLike", "bl.e", "blue", False),
        ("StringNotLike", "bl*", "blue", False),
        ("ArnLike", "arn:aws:iam::*:role/reader", ROLE, True),
        ("ArnEquals", "arn:aws:iam::*:role/*", ROLE, True),
        ("ArnLike", "arn:aws:*:role/reader", ROLE, None),
        ("ArnLike", "arn:aws:iam::*:role/reader", "reader", False),
        ("ArnNotLike", "arn:aws:iam::*:role/reader", ROLE, False),
        ("ArnNotEquals", "arn:aws:iam::*:role/other", ROLE, True),
        ("Bool", "true", "true", True),
        ("Bool", True, "true", True),
        ("Bool", "true", "false", False),
        ("Bool", "yes", "true", None),
        ("NumericEquals", "10", "10.0", True),
        ("NumericEquals", 10, "10", True),
        ("NumericNotEquals", "10", "11", True),
        ("NumericLessThan", "10", "9", True),
        ("NumericLessThan", "10", "10", False),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericGreaterThan", "10", "9", False),
        ("NumericGreaterThanEquals", "10", "10", True),
        ("NumericEquals", "ten", "10", None),
        ("NumericEquals", "10", "ten", False),
        ("DateGreaterThan", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", True),
        ("DateLessThan", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+02:00", True),
        ("DateEquals", "1767225600", "2026-01-01T00:00:00Z", True),
        ("DateNotEquals", "2026-01-01", "2026-01-01T00:00:00Z", False),
        ("IpAddress", "203.0.113.0/24", "203.0.113.9", True),
        ("IpAddress", "203.0.113.0/24", "203.0.114.9", False),
        ("NotIpAddress", ["203.0.113.0/24", "2001:db8::/32"], "2001:db8::1", False),
        ("Null", "true", "blue", False),
        ("Null", "false", "blue", True),
        ("BinaryEquals", "QmluYXJ5", "QmluYXJ5", None),
        ("StringMatches", "blue", "blue", None),
        ("NullIfExists", "true", "blue", None),
        ("ForSomeValues:StringEquals", "blue", "blue", None),
    ],
)
def test_an_operator(operator: str, expected: Any, value: str, holds: bool | None) -> None:
    """`holds` None: it is refused, not passed over."""
    condition = {operator: {"aws:PrincipalTag/colour": expected}}
    if holds is None:
        with pytest.raises(Unsupported):
            met(condition, {"aws:principaltag/colour": [value]})
    else:
        assert met(condition, {"aws:principaltag/colour": [value]}) is holds


# The same page: the key is missing; "...IfExists condition operators"; "Set operators for multi-valued
# context keys"; and re:Post "ForAnyValue:StringEqualsIfExists behaving unexpectedly".
@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        ("StringEquals", False),
        ("StringLike", False),
        ("NumericLessThan", False),
        ("Bool", False),
        ("StringNotEquals", True),
        ("StringNotLike", True),
        ("ArnNotEquals", True),
        ("StringEqualsIfExists", True),
        ("BoolIfExists", True),
        ("StringNotEqualsIfExists", True),
        ("Null", True),
        ("ForAllValues:StringEquals", True),
        ("ForAllValues:StringNotEquals", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
        ("ForAnyValue:StringEqualsIfExists", False),
    ],
)
def test_a_key_that_is_missing(operator: str, holds: bool) -> None:
    assert met({operator: {"aws:PrincipalTag/colour": "true"}}, {}) is holds


# "Set operators for multi-valued context keys", with its example of keys and the null data set.
@pytest.mark.parametrize(
    ("operator", "keys", "holds"),
    [
        ("ForAllValues:StringEquals", ["placement"], True),
        ("ForAllValues:StringEquals", ["placement", "team"], True),
        ("ForAllValues:StringEquals", ["placement", "owner"], False),
        ("ForAllValues:StringEquals", [], True),
        ("ForAllValues:StringEquals", [""], True),
        ("ForAllValues:StringLike", ["place", "Placement"], False),
        ("ForAllValues:StringNotEquals", ["owner"], True),
        ("ForAllValues:StringNotEquals", ["owner", "team"], False),
        ("ForAnyValue:StringEquals", ["owner", "team"], True),
        ("ForAnyValue:StringEquals", ["owner"], False),
        ("ForAnyValue:StringNotEquals", ["owner", "team"], True),
        ("ForAnyValue:StringNotEquals", ["placement", "team"], False),
    ],
)
def test_a_key_of_several_values(operator: str, keys: list[str], holds: bool) -> None:
    assert met({operator: {"aws:TagKeys": ["placement", "team"]}}, {"aws:tagkeys": keys}) is holds


def test_a_key_of_several_values_needs_a_set_operator() -> None:
    with pytest.raises(Unsupported, match="ForAllValues or ForAnyValue"):
        met({"StringEquals": {"aws:TagKeys": "placement"}}, {"aws:tagkeys": ["placement"]})


def test_every_operator_and_key_must_hold() -> None:
    condition = {
        "StringEquals": {"aws:PrincipalTag/a": "1", "aws:PrincipalTag/b": "2"},
        "StringLike": {"aws:PrincipalTag/c": "*"},
    }
    tags = {"aws:principaltag/a": ["1"], "aws:principaltag/b": ["2"], "aws:principaltag/c": ["3"]}
    assert met(condition, tags)
    for key in tags:
        assert not met(condition, {**tags, key: ["4"]} if key != "aws:principaltag/c" else {**tags, key: []})


# "IAM policy elements: Variables and tags".
@pytest.mark.parametrize(
    ("expected", "value", "holds"),
    [
        ("${aws:PrincipalTag/placement}", "p-a", True),
        ("${aws:PrincipalTag/placement}", "p-b", False),
        ("${AWS:principaltag/PLACEMENT}", "p-a", True),
        ("x-${aws:PrincipalTag/placement}-y", "x-p-a-y", True),
        ("${aws:PrincipalTag/team}", "", False),
        ("${aws:PrincipalTag/team}", "p-a", False),
        ("${aws:PrincipalTag/team, 'none'}", "none", True),
        ("${aws:PrincipalTag/placement, 'none'}", "none", False),
        ("${aws:PrincipalTag/team, ''}", "", True),
        ("${*}", "*", True),
        ("${?}${$}", "?$", True),
        ("${aws:PrincipalTag/star}", "*", True),
        ("${aws:TagKeys}", "placement", None),
        ("${aws:PrincipalTag/team, none}", "none", None),
        ("${aws:PrincipalTag/placement", "p-a", None),
        ("${aws:NoSuchKey}", "p-a", None),
    ],
)
def test_a_variable(expected: str, value: str, holds: bool | None) -> None:
    context = {
        "aws:principaltag/placement": ["p-a"],
        "aws:principaltag/star": ["*"],
        "aws:tagkeys": ["placement"],
        "secretsmanager:resourcetag/placement": [value],
    }
    condition = {"StringEquals": {"secretsmanager:ResourceTag/placement": expected}}
    if holds is None:
        with pytest.raises(Unsupported):
            met(condition, context)
    else:
        assert met(condition, context) is holds


# The same page: wildcards in a value that a variable stands for are none; `${*}` is a star.
@pytest.mark.parametrize(
    ("pattern", "value", "holds"),
    [
        ("${aws:PrincipalTag/star}", "anything", False),
        ("${aws:PrincipalTag/star}*", "*thing", True),
        ("${*}", "anything", False),
        ("a${*}*", "a*b", True),
    ],
)
def test_a_wildcard_is_one_only_where_it_is_written(pattern: str, value: str, holds: bool) -> None:
    context = {"aws:principaltag/star": ["*"], "aws:requesttag/x": [value]}
    assert met({"StringLike": {"aws:RequestTag/x": pattern}}, context) is holds
    assert policy(statement(Resource=pattern)).allows(asked(resource=value, **context)) is holds


def test_variables_are_text_in_the_older_version() -> None:
    condition = {"StringEquals": {"aws:RequestTag/x": "${aws:PrincipalTag/placement}"}}
    context = {"aws:principaltag/placement": ["p-a"], "aws:requesttag/x": ["p-a"]}
    assert met(condition, context)
    assert not met(condition, context, version="2008-10-17")
    assert met(condition, {"aws:requesttag/x": ["${aws:PrincipalTag/placement}"]}, version="2008-10-17")


def test_variables_are_text_where_an_operator_does_not_read_them() -> None:
    with pytest.raises(Unsupported, match="a number"):
        met(
            {"NumericEquals": {"aws:RequestTag/x": "${aws:PrincipalTag/n}"}},
            {"aws:principaltag/n": ["1"], "aws:requesttag/x": ["1"]},
        )


def test_a_denial_may_not_rest_on_a_variable_without_a_value() -> None:
    """AWS says only that the statement may be invalid, and an invalid denial denies nothing."""
    foreign = {"StringNotEquals": {"aws:ResourceTag/placement": "${aws:PrincipalTag/placement}"}}
    denial = policy(statement("Deny", Condition=foreign))
    tagged = {"aws:resourcetag/placement": ["p-a"]}
    assert denial.denies(asked(**tagged, **{"aws:principaltag/placement": ["p-b"]}))
    with pytest.raises(Unsupported, match="expected a default"):
        denial.denies(asked(**tagged))


# "Rules for tagging in IAM and AWS STS": tags of a session are told apart without regard to case; those of a
# secret are not, and their values never are.
@pytest.mark.parametrize(
    ("session", "secret", "holds"),
    [
        ({"aws:principaltag/placement": ["p-a"]}, ["p-a"], True),
        ({"aws:principaltag/placement": ["T-A-1"]}, ["p-a"], False),
        ({"aws:principaltag/placement": ["p-a"]}, ["p-b"], False),
        ({"aws:principaltag/placement": ["p-a"]}, [], False),
        ({}, ["p-a"], False),
        ({}, [], False),
        ({"aws:principaltag/placement": ["*"]}, ["p-a"], False),
        ({"aws:principaltag/placement": ["p-a"]}, ["p-a", "p-b"], None),
    ],
)
def test_access_by_tag(session: dict[str, list[str]], secret: list[str], holds: bool | None) -> None:
    """A secret with the tags `placement` and `Placement` has two values for one key."""
    condition = {"StringEquals": {"secretsmanager:ResourceTag/placement": "${aws:PrincipalTag/placement}"}}
    context = session | ({"secretsmanager:resourcetag/placement": secret} if secret else {})
    if holds is None:
        with pytest.raises(Unsupported, match="2 values"):
            met(condition, context)
    else:
        assert met(condition, context) is holds


@pytest.mark.parametrize(
    "wrong",
    [
        {"Condition": {"StringEquals": {"aws:SourceVpce": "vpce-1"}}},
        {"Condition": {"StringEqualsIfExists": {"aws:SourceVpce": "vpce-1"}}},
        {"Condition": {"Null": {"aws:PrincipalTag/": "true"}}},
        {"Conditions": {}},
        {"Effect": "allow"},
        {"NotResource": "*"},
        {"Principal": {"CanonicalUser": "79a5"}},
        {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/*"}},
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        policy(statement(**wrong)).allows(asked())


def test_a_condition_of_another_action_is_not_read() -> None:
    of_another = statement(Action="s3:GetObject", Condition={"StringEquals": {"s3:prefix": "x"}})
    assert policy(of_another, statement()).allows(asked())


def test_the_evaluation_knows_no_emulator() -> None:
    folder = Path(evaluation.__file__).parent
    for name in ("policy.py", "policy_conditions.py"):
        tree = ast.parse((folder / name).read_text(encoding="utf-8"))
        imports = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imports += [
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        ]
        assert not [one for one in imports if "moto" in one or "fidelity" in one or "boto" in one]

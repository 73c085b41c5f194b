"""IAM, STS and what they say of secrets, as the emulator has them.

Each test fails on moto as it is; `controlplane.localcloud.aws.fidelity` says why. What policies mean is
`test_policy.py`'s; this asks whether requests are held to them.
"""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.localcloud.conftest import EmulatedAws, refused

READ = "secretsmanager:GetSecretValue"
OWN = {"StringEquals": {"secretsmanager:ResourceTag/placement": "${aws:PrincipalTag/placement}"}}
ANYBODY = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Principal": {"AWS": "*"}}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str = READ, resource: str = "*", **elements: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **elements}


def secret_of(account: EmulatedAws, placement: str | None = None, **options: Any) -> str:
    """The name of a new secret with the value "one"."""
    name = f"placements/{uuid.uuid4().hex}/app"
    tags = [] if placement is None else [{"Key": "placement", "Value": placement}]
    account.secrets.create_secret(Name=name, SecretString="one", Tags=tags, **options)
    return name


def role(
    account: EmulatedAws,
    *policy: dict[str, Any],
    trust: dict[str, Any] = ANYBODY,
    boundary: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
    **options: Any,
) -> str:
    """The ARN of a new role with these statements."""
    iam, name = account.client("iam"), f"r-{uuid.uuid4().hex}"
    if boundary is not None:
        made = iam.create_policy(PolicyName=name, PolicyDocument=document(boundary))
        options["PermissionsBoundary"] = made["Policy"]["Arn"]
    options["Tags"] = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust), **options)
    if policy:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*policy))
    arn: str = role["Role"]["Arn"]
    return arn


def session(
    account: EmulatedAws, role: str, *, by: Any = None, tags: dict[str, str] | None = None, **options: Any
) -> dict[str, str]:
    """Credentials of the role, assumed by `by` (a client of STS) or the account's owner."""
    options |= {} if tags is None else {"Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
    sts = by or account.client("sts")
    keys = sts.assume_role(RoleArn=role, RoleSessionName="test", **options)["Credentials"]
    return {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["SessionToken"],
    }


def reads(account: EmulatedAws, name: str, keys: dict[str, str]) -> bool:
    """Whether the session may read the secret. Any other error is raised."""
    client = account.client("secretsmanager", **keys)
    try:
        return bool(client.get_secret_value(SecretId=name)["SecretString"] == "one")
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        return False


@pytest.mark.parametrize("form", ["exact", "recommended", "by prefix"])
def test_a_scoped_policy_opens_its_own_secret_and_no_other(account: EmulatedAws, form: str) -> None:
    secret = secret_of(account)
    other = f"{secret}-other"
    account.secrets.create_secret(Name=other, SecretString="other")
    arn = account.secrets.describe_secret(SecretId=secret)["ARN"]
    resource = {"exact": arn, "recommended": f"{arn[:-6]}??????", "by prefix": f"{arn[:-6]}*"}[form]
    keys = session(account, role(account, allow(resource=resource)))
    assert reads(account, secret, keys)
    assert reads(account, arn, keys)
    beyond = [other] if form != "by prefix" else []  # whose name begins with the prefix
    for refused_id in (*beyond, "placements/unknown"):
        assert not reads(account, refused_id, keys)
    with refused("AccessDeniedException", "is not authorized to perform: secretsmanager:PutSecretValue"):
        account.client("secretsmanager", **keys).put_secret_value(SecretId=secret, SecretString="stolen")


def test_a_boundary_limits_what_policies_allow(account: EmulatedAws) -> None:
    secret, placements = secret_of(account), "arn:aws:secretsmanager:*:*:secret:placements/*"
    within = allow(resource=placements)
    assert reads(account, secret, session(account, role(account, allow(), boundary=within)))
    elsewhere = allow(resource=placements.replace("placements", "other"))
    assert not reads(account, secret, session(account, role(account, allow(), boundary=elsewhere)))


def test_the_owner_of_the_account_is_held_only_where_it_is_told(account: EmulatedAws) -> None:
    secret = secret_of(account)
    keys = session(account, role(account, allow()))
    url = f"{account.emulator.url}/moto-api/reset-auth"

    def reset(after: bytes) -> None:
        urlopen(Request(url, data=after, headers={"Content-Type": "text/plain"}), timeout=10).close()

    reset(b"0")
    try:
        with refused("InvalidClientTokenId"):
            account.client("sts").assume_role(RoleArn="arn:aws:iam::1:role/x", RoleSessionName="test")
        assert reads(account, secret, keys)
    finally:
        reset(b"Infinity")
    assert account.secrets.get_secret_value(SecretId=secret)["SecretString"] == "one"


def test_a_signature_must_be_the_sessions(account: EmulatedAws) -> None:
    keys = session(account, role(account, allow(action="sts:*")))
    forged = account.client("sts", **{**keys, "aws_secret_access_key": "guessed"})
    with refused("SignatureDoesNotMatch"):
        forged.get_caller_identity()


def test_a_session_reads_what_bears_its_tag(account: EmulatedAws) -> None:
    own, foreign, untagged = secret_of(account, "t-a-1"), secret_of(account, "t-b-1"), secret_of(account)
    shouting = secret_of(account, "T-A-1")
    reader = role(account, allow(Condition=OWN), boundary=allow(Condition=OWN))
    tagged = session(account, reader, tags={"placement": "t-a-1"})
    assert [reads(account, name, tagged) for name in (own, foreign, untagged, shouting)] == [
        True, False, False, False,
    ]  # fmt: skip
    spelled = session(account, reader, tags={"Placement": "t-a-1"})
    assert reads(account, own, spelled)  # keys of session tags are not case-sensitive
    without = session(account, reader)
    assert not [name for name in (own, foreign, untagged) if reads(account, name, without)]


def test_the_tags_are_those_that_the_secret_has_now(account: EmulatedAws) -> None:
    secret = secret_of(account, "t-b-1")
    keys = session(account, role(account, allow(Condition=OWN)), tags={"placement": "t-a-1"})
    assert not reads(account, secret, keys)
    account.secrets.tag_resource(SecretId=secret, Tags=[{"Key": "placement", "Value": "t-a-1"}])
    assert reads(account, secret, keys)
    account.secrets.untag_resource(SecretId=secret, TagKeys=["placement"])
    assert not reads(account, secret, keys)


def test_a_tag_of_the_session_goes_before_the_roles(account: EmulatedAws) -> None:
    own, roles = secret_of(account, "t-a-1"), secret_of(account, "t-r-1")
    reader = role(account, allow(Condition=OWN), tags={"placement": "t-r-1"})
    tagged, untagged = session(account, reader, tags={"PLACEMENT": "t-a-1"}), session(account, reader)
    assert (reads(account, own, tagged), reads(account, roles, tagged)) == (True, False)
    assert (reads(account, own, untagged), reads(account, roles, untagged)) == (False, True)


def test_a_key_that_is_not_known_is_refused_by_name(account: EmulatedAws) -> None:
    secret = secret_of(account)
    there = {"StringEquals": {"aws:SourceVpce": "vpce-1"}}
    keys = session(account, role(account, allow(Condition=there)))
    with refused("UnsupportedByLocalcloud", "aws:SourceVpce"):
        reads(account, secret, keys)


APP_MAY = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": "*"}


def trusting(app: str, **condition: Any) -> dict[str, Any]:
    return {**ANYBODY, "Principal": {"AWS": app}, "Condition": condition}


DEMANDED = {
    "StringLike": {"aws:RequestTag/placement": "?*"},
    "ForAllValues:StringEquals": {"aws:TagKeys": ["placement"]},
}


def test_a_role_is_assumed_by_whom_it_trusts_with_the_tag_that_it_demands(account: EmulatedAws) -> None:
    app, other = role(account, APP_MAY), role(account, APP_MAY)
    reader = role(account, allow(Condition=OWN), trust=trusting(app, **DEMANDED))
    as_app = account.client("sts", **session(account, app))
    own = secret_of(account, "t-a-1")
    assert reads(account, own, session(account, reader, by=as_app, tags={"placement": "t-a-1"}))
    for tags in (None, {"placement": ""}, {"team": "x"}, {"placement": "t-a-1", "team": "x"}):
        with refused("AccessDenied", "is not authorized to perform: sts:"):
            session(account, reader, by=as_app, tags=tags)
    as_other = account.client("sts", **session(account, other))
    with refused("AccessDenied", "is not authorized to perform: sts:AssumeRole"):
        session(account, reader, by=as_other, tags={"placement": "t-a-1"})


def test_tags_need_a_permission_of_their_own(account: EmulatedAws) -> None:
    app = role(account, APP_MAY)
    trust = {**trusting(app), "Action": "sts:AssumeRole"}
    reader = role(account, allow(), trust=trust)
    as_app = account.client("sts", **session(account, app))
    session(account, reader, by=as_app)
    with refused("AccessDenied", "sts:AssumeRole"):
        session(account, reader, by=as_app, tags={"placement": "t-a-1"})


def test_a_trust_policy_that_names_the_account_leaves_it_to_policies(account: EmulatedAws) -> None:
    may, may_not = role(account, APP_MAY), role(account)
    reader = role(account, allow(), trust=trusting(may.split(":role/")[0] + ":root"))
    session(account, reader, by=account.client("sts", **session(account, may)))
    with refused("AccessDenied"):
        session(account, reader, by=account.client("sts", **session(account, may_not)))


def test_an_external_id_is_demanded(account: EmulatedAws) -> None:
    app = role(account, APP_MAY)
    reader = role(account, trust=trusting(app, StringEquals={"sts:ExternalId": "t-a"}))
    as_app = account.client("sts", **session(account, app))
    session(account, reader, by=as_app, ExternalId="t-a")
    with refused("AccessDenied"):
        session(account, reader, by=as_app, ExternalId="t-b")
    with refused("AccessDenied"):
        session(account, reader, by=as_app)


def test_a_role_that_is_not_there_is_assumed_by_nobody(account: EmulatedAws) -> None:
    app = role(account, APP_MAY)
    with refused("AccessDenied"):
        session(account, f"{app}-gone", by=account.client("sts", **session(account, app)))


def test_transitive_tags_stay_through_a_chain_of_roles(account: EmulatedAws) -> None:
    reader = role(account, allow(Condition=OWN))
    demanding = trusting("*", **{"ForAnyValue:StringEquals": {"sts:TransitiveTagKeys": "placement"}})
    first = role(account, APP_MAY, trust=demanding)
    options = {"tags": {"placement": "t-a-1", "team": "x"}, "TransitiveTagKeys": ["placement"]}
    as_first = account.client("sts", **session(account, first, **options))
    own = secret_of(account, "t-a-1")
    assert reads(account, own, session(account, reader, by=as_first))
    with refused("ValidationError", "conflicts with a transitive tag"):
        session(account, reader, by=as_first, tags={"Placement": "t-b-1"})
    as_app = account.client("sts", **session(account, role(account, APP_MAY)))
    with refused("AccessDenied"):
        session(account, first, by=as_app, tags={"placement": "t-a-1"})


def test_tags_that_differ_in_case_alone_are_one(account: EmulatedAws) -> None:
    with refused("ValidationError", "Duplicate tag keys"):
        session(account, role(account), tags={"placement": "t-a-1", "Placement": "t-b-1"})


def test_a_session_policy_limits_what_the_role_may(account: EmulatedAws) -> None:
    secret, other, reader = secret_of(account), secret_of(account), role(account, allow())
    arn = account.secrets.describe_secret(SecretId=secret)["ARN"]
    narrowed = session(account, reader, Policy=document(allow(resource=arn)))
    assert (reads(account, secret, narrowed), reads(account, other, narrowed)) == (True, False)
    managed = account.client("iam").create_policy(
        PolicyName=f"p-{uuid.uuid4().hex}", PolicyDocument=document(allow(resource=arn))
    )["Policy"]["Arn"]
    narrowed = session(account, reader, PolicyArns=[{"arn": managed}])
    assert (reads(account, secret, narrowed), reads(account, other, narrowed)) == (True, False)


def test_a_session_ends_within_what_the_role_and_the_chain_allow(account: EmulatedAws) -> None:
    long = role(account, APP_MAY, MaxSessionDuration=7200)
    session(account, long, DurationSeconds=7200)
    with refused("ValidationError", "MaxSessionDuration"):
        session(account, long, DurationSeconds=7201)
    with refused("ValidationError", "role chaining"):
        as_role = account.client("sts", **session(account, long))
        session(account, long, by=as_role, DurationSeconds=7200)


def test_a_secret_under_a_key_of_ones_own_needs_the_key(account: EmulatedAws) -> None:
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    secret = secret_of(account, KmsKeyId=key)
    assert not_opened(account, secret, role(account, allow()))
    via = {"StringEquals": {"kms:ViaService": "secretsmanager.eu-central-1.amazonaws.com"}}
    arn = account.secrets.describe_secret(SecretId=secret)["ARN"]
    of_secret = {"StringEquals": {"kms:EncryptionContext:SecretARN": arn}}
    for condition in (via, of_secret):
        decrypt = allow("kms:Decrypt", key, Condition=condition)
        assert reads(account, secret, session(account, role(account, allow(), decrypt)))
    elsewhere = {"StringEquals": {"kms:ViaService": "rds.eu-central-1.amazonaws.com"}}
    for wrong in (allow("kms:Decrypt", key, Condition=elsewhere), allow("kms:Decrypt", f"{key}0")):
        assert not_opened(account, secret, role(account, allow(), wrong))


def not_opened(account: EmulatedAws, secret: str, reader: str) -> bool:
    with refused("AccessDeniedException", "Access to KMS is not allowed"):
        client = account.client("secretsmanager", **session(account, reader))
        client.get_secret_value(SecretId=secret)
    return True


def test_retagging_can_be_kept_from_all_but_one(account: EmulatedAws) -> None:
    secret = secret_of(account, "t-a-1")
    worker = role(account, allow("secretsmanager:*"))
    only = {"ArnNotEquals": {"aws:PrincipalArn": worker}}
    changes = ["secretsmanager:TagResource", "secretsmanager:UntagResource"]
    denial = {"Effect": "Deny", "Action": changes, "Resource": "*", "Condition": only}
    other = role(account, allow("secretsmanager:*"), denial)
    account.client("iam").put_role_policy(
        RoleName=worker.split("/")[1], PolicyName="d", PolicyDocument=document(denial)
    )
    tag = {"SecretId": secret, "Tags": [{"Key": "placement", "Value": "t-b-1"}]}
    account.client("secretsmanager", **session(account, worker)).tag_resource(**tag)
    with refused("AccessDeniedException", "secretsmanager:TagResource"):
        account.client("secretsmanager", **session(account, other)).tag_resource(**tag)


def test_a_user_is_held_to_its_policies(account: EmulatedAws) -> None:
    iam, name = account.client("iam"), f"u-{uuid.uuid4().hex}"
    iam.create_user(UserName=name, Tags=[{"Key": "placement", "Value": "t-a-1"}])
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(allow(Condition=OWN)))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    own, foreign = secret_of(account, "t-a-1"), secret_of(account, "t-b-1")
    assert (reads(account, own, keys), reads(account, foreign, keys)) == (True, False)


def test_a_simulation_knows_what_it_is_given(account: EmulatedAws) -> None:
    reader = role(account, allow(Condition=OWN), boundary=allow(Condition=OWN))
    arn = account.secrets.describe_secret(SecretId=secret_of(account, "t-a-1"))["ARN"]

    def decision(**context: str) -> str:
        entries = [
            {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for name, value in context.items()
        ]
        answer = account.client("iam").simulate_principal_policy(
            PolicySourceArn=reader, ActionNames=[READ], ResourceArns=[arn], ContextEntries=entries
        )
        return str(answer["EvaluationResults"][0]["EvalDecision"])

    of_secret = {"secretsmanager:ResourceTag/placement": "t-a-1"}
    assert decision(**of_secret, **{"aws:PrincipalTag/placement": "t-a-1"}) == "allowed"
    assert decision(**of_secret, **{"aws:PrincipalTag/placement": "t-b-1"}) == "implicitDeny"
    assert decision(**of_secret) == "implicitDeny"
    assert decision(**{"aws:PrincipalTag/placement": "t-a-1"}) == "implicitDeny"

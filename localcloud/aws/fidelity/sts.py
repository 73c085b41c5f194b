"""STS: what a session of a role carries, and how long it may last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.sts.exceptions import STSValidationError
from moto.sts.responses import TokenResponse

from controlplane.localcloud.aws.fidelity.patch import around

CHAINED_SECONDS = 3600


def repair() -> None:
    @around(TokenResponse, "assume_role")
    def a_session_keeps_what_was_passed(assume: Callable[[Any], ActionResult], self: Any) -> ActionResult:
        """AWS: session tags and policies stay with the session, transitive tags with those that it
        assumes (IAM User Guide, "Pass session tags in AWS STS", "Session policies"), and a session that
        was assumed by a session ends within the hour ("Role chaining"). moto: looks at none of it."""
        query: Mapping[str, list[str]] = self.querystring
        caller = self.backend.get_assumed_role_from_access_key(self.get_access_key())
        tags, transitive = tags_of(query), listed(query, "TransitiveTagKeys")
        inherited = getattr(caller, "transitive_tags", {})
        _refuse_wrong_tags(tags, transitive, inherited)
        _refuse_too_long(self, query, chained=caller is not None)
        answer = assume(self)
        session: Any = answer.result["Credentials"]  # type: ignore[index]  # moto's own result
        session.tags = inherited | tags
        session.transitive_tags = inherited | {key: tags[key] for key in transitive}
        session.policies = [
            *query.get("Policy", []),
            *(
                _managed(self.current_account, self.partition, arn)
                for arn in listed(query, "PolicyArns", ".arn")
            ),
        ]
        return answer


def tags_of(query: Mapping[str, list[str]]) -> dict[str, str]:
    """The tags that a request in the query protocol passes."""
    return dict(zip(listed(query, "Tags", ".Key"), listed(query, "Tags", ".Value"), strict=True))


def listed(query: Mapping[str, list[str]], name: str, part: str = "") -> list[str]:
    """The members of a list of the query protocol, in their order."""
    pattern = re.compile(rf"{name}\.member\.(\d+){re.escape(part)}")
    numbered = {int(found[1]): query[key][0] for key in query if (found := pattern.fullmatch(key))}
    return [numbered[number] for number in sorted(numbered)]


def pairs(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def _refuse_wrong_tags(tags: Mapping[str, str], transitive: list[str], inherited: Mapping[str, str]) -> None:
    if len({key.lower() for key in tags}) < len(tags):
        raise STSValidationError("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if not set(transitive) <= tags.keys():
        raise STSValidationError("The specified transitive tag key must be included in the requested tags.")
    if {key.lower() for key in tags} & {key.lower() for key in inherited}:
        raise STSValidationError(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive "
            "tag key from the calling session."
        )


def _refuse_too_long(response: Any, query: Mapping[str, list[str]], *, chained: bool) -> None:
    seconds = int(query.get("DurationSeconds", [CHAINED_SECONDS])[0])
    for role in iam_backends[response.current_account][response.partition].get_roles():
        if role.arn == query["RoleArn"][0] and seconds > int(role.max_session_duration or CHAINED_SECONDS):
            raise STSValidationError(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            )
    if chained and seconds > CHAINED_SECONDS:
        raise STSValidationError(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role "
            "chaining"
        )


def _managed(account: str, partition: str, arn: str) -> str:
    try:
        policy = iam_backends[account][partition].get_policy(arn)
    except NotFoundException as error:
        raise STSValidationError(f"Policy {arn} does not exist") from error
    return next(version.document for version in policy.versions if version.is_default)

"""IAM roles of clusters. Terraform makes them; this only looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from controlplane.domain.errors import Invalid, NotFound
from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import Tagged

READ = "secretsmanager:GetSecretValue"
MOST_SECRETS = 50
_TAGS = ("aws:ResourceTag", "secretsmanager:ResourceTag")


class AwsIdentities:
    """`ports.Identities` on AWS IAM."""

    def __init__(self, *, region: str) -> None:
        self._client = aws.client("iam", region=region)

    def role_exists(self, name: str) -> bool:
        with aws.errors(f"looking for role {name}"):
            try:
                self._client.get_role(RoleName=name)
            except ClientError as error:
                if aws.code(error) == "NoSuchEntity":
                    return False
                raise
        return True

    def readable(self, role: str, placement: str | None, secrets: Sequence[Tagged]) -> list[str]:
        """With `iam:SimulatePrincipalPolicy`, which this needs for roles of clusters. The simulator looks up
        no tags: it is told them, for all resources of a call the same, so secrets with other tags are another
        call. Of several resources it answers either one result each, or one with a decision for each."""
        if not 1 <= len(secrets) <= MOST_SECRETS:
            raise Invalid("secrets", f"1 to {MOST_SECRETS}", got=len(secrets))
        alike: defaultdict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
        for secret in secrets:
            alike[tuple(sorted(secret.tags.items()))].append(secret.arn)
        session = {} if placement is None else {"aws:PrincipalTag/placement": placement}
        allowed: set[str] = set()
        with aws.errors(f"simulating role {role}"):
            try:
                arn = self._client.get_role(RoleName=role)["Role"]["Arn"]
            except ClientError as error:
                if aws.code(error) == "NoSuchEntity":
                    raise NotFound(f"there is no role {role}") from error
                raise
            for tags, arns in alike.items():
                context = session | {f"{family}/{key}": value for key, value in tags for family in _TAGS}
                allowed |= self._allowed(arn, arns, context)
        return [secret.arn for secret in secrets if secret.arn in allowed]

    def _allowed(self, role: str, secrets: list[str], context: Mapping[str, str]) -> set[str]:
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in context.items()
        ]
        pages = self._client.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=role, ActionNames=[READ], ResourceArns=secrets, ContextEntries=entries
        )
        results: list[Any] = [result for page in pages for result in page["EvaluationResults"]]
        decisions = {str(r.get("EvalResourceName")): str(r["EvalDecision"]) for r in results}
        for result in results:
            for one in result.get("ResourceSpecificResults", []):
                decisions[str(one["EvalResourceName"])] = str(one["EvalResourceDecision"])
        return {secret for secret in secrets if decisions.get(secret) == "allowed"}

"""IAM roles of tenants. Terraform makes them; this only looks."""

from __future__ import annotations

from collections.abc import Sequence

from botocore.exceptions import ClientError

from controlplane.domain.errors import Invalid, NotFound
from controlplane.workers.providers import aws

READ = "secretsmanager:GetSecretValue"
MOST_SECRETS = 50


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

    def readable(self, role: str, secrets: Sequence[str]) -> list[str]:
        """With `iam:SimulatePrincipalPolicy`, which this needs for roles of tenants. Of several resources
        AWS answers either one result each, or one result with a decision for each."""
        if not 1 <= len(secrets) <= MOST_SECRETS:
            raise Invalid("secrets", f"1 to {MOST_SECRETS} ARNs", got=len(secrets))
        with aws.errors(f"simulating role {role}"):
            try:
                arn = self._client.get_role(RoleName=role)["Role"]["Arn"]
            except ClientError as error:
                if aws.code(error) == "NoSuchEntity":
                    raise NotFound(f"there is no role {role}") from error
                raise
            pages = self._client.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=arn, ActionNames=[READ], ResourceArns=list(secrets)
            )
            results = [result for page in pages for result in page["EvaluationResults"]]
        decisions = {str(r.get("EvalResourceName")): str(r["EvalDecision"]) for r in results}
        for result in results:
            for one in result.get("ResourceSpecificResults", []):
                decisions[str(one["EvalResourceName"])] = str(one["EvalResourceDecision"])
        return [secret for secret in secrets if decisions.get(secret) == "allowed"]

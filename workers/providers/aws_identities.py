"""IAM roles of tenants. Terraform makes them; this only looks."""

from __future__ import annotations

from botocore.exceptions import ClientError

from workers.providers import aws


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

"""Secrets Manager: containers that Terraform makes, values that the worker writes.

Rules of the service that this file lives by ("Secrets Manager: PutSecretValue" and "DeleteSecret" in
AWS's reference): `ClientRequestToken` becomes the version's id, and the same token with the same value
is answered with the version there is; a secret that waits for its deletion can be described but not
read; `VersionStage` is passed explicitly because a stage that was moved by hand is otherwise not
always honoured.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from controlplane.domain.errors import Invalid, NeedsHuman, NotFound, Retryable
from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import Credential, SecretDescription

CURRENT = "AWSCURRENT"
PENDING = "AWSPENDING"


class AwsSecrets:
    """`ports.Secrets` on AWS Secrets Manager."""

    def __init__(self, *, region: str) -> None:
        self._client = aws.client("secretsmanager", region=region)

    def describe(self, name: str) -> SecretDescription | None:
        with aws.errors(f"describing secret {name}"):
            try:
                observed = self._client.describe_secret(SecretId=name)
            except ClientError as error:
                if aws.code(error) == "ResourceNotFoundException":
                    return None
                raise
        versions: dict[str, list[str]] = observed.get("VersionIdsToStages") or {}
        return SecretDescription(
            name=observed["Name"],
            arn=observed["ARN"],
            version_id=next((version for version, stages in versions.items() if CURRENT in stages), None),
            deleting="DeletedDate" in observed,
        )

    def read(self, name: str) -> Credential:
        """Raises Retryable while there is no value, or while the secret waits for its deletion
        (Terraform's next run restores it), and NotFound where there is no such secret."""
        with aws.errors(f"reading secret {name}"):
            try:
                answer = self._client.get_secret_value(SecretId=name, VersionStage=CURRENT)
            except ClientError as error:
                if aws.code(error) == "InvalidRequestException":
                    raise Retryable(f"secret {name} waits for its deletion") from error
                if aws.code(error) != "ResourceNotFoundException":
                    raise
                if self.describe(name) is None:
                    raise NotFound(f"there is no secret {name}") from error
                raise Retryable(f"secret {name} has no value yet") from error
        return parse_credential(answer.get("SecretString") or "", name=name)

    def write(self, name: str, credential: Credential, *, token: str) -> str:
        return self._put(name, credential, token=token, stage=CURRENT)

    def _put(self, name: str, credential: Credential, *, token: str, stage: str) -> str:
        if not 32 <= len(token) <= 64:
            raise Invalid("token", "32 to 64 characters", got=len(token))
        with aws.errors(f"writing secret {name}"):
            try:
                answer = self._client.put_secret_value(
                    SecretId=name,
                    SecretString=render_credential(credential),
                    ClientRequestToken=token,
                    VersionStages=[stage],
                )
            except ClientError as error:
                if aws.code(error) == "ResourceNotFoundException":
                    raise NotFound(f"there is no secret {name}") from error
                if aws.code(error) == "InvalidRequestException":
                    raise Retryable(f"secret {name} waits for its deletion") from error
                if aws.code(error) == "ResourceExistsException":
                    raise NeedsHuman(
                        f"secret {name} has a version {token} with another value", runbook="secret-conflict"
                    ) from error
                raise
        return str(answer["VersionId"])

    def read_version(self, name: str, version_id: str) -> Credential | None:
        with aws.errors(f"reading version {version_id} of secret {name}"):
            try:
                answer = self._client.get_secret_value(SecretId=name, VersionId=version_id)
            except ClientError as error:
                if aws.code(error) == "InvalidRequestException":
                    raise Retryable(f"secret {name} waits for its deletion") from error
                if aws.code(error) == "ResourceNotFoundException":
                    return None
                raise
        return parse_credential(answer.get("SecretString") or "", name=name)

    def stage(self, name: str, credential: Credential, *, token: str) -> str:
        """Refuses a secret without a value: the first version becomes current whatever its label."""
        observed = self.describe(name)
        if observed is None or observed.version_id is None:
            raise Retryable(f"secret {name} has no value yet")
        try:
            return self._put(name, credential, token=token, stage=PENDING)
        except NeedsHuman as error:
            raise Retryable(f"version {token} of secret {name} was staged by somebody else") from error

    def promote(self, name: str, version_id: str, *, replacing: str) -> None:
        with aws.errors(f"promoting version {version_id} of secret {name}"):
            try:
                self._client.update_secret_version_stage(
                    SecretId=name,
                    VersionStage=CURRENT,
                    MoveToVersionId=version_id,
                    RemoveFromVersionId=replacing,
                )
            except ClientError as error:
                if aws.code(error) not in ("InvalidParameterException", "ResourceNotFoundException"):
                    raise
                observed = self.describe(name)
                if observed is None or observed.version_id != version_id:
                    raise Retryable(f"secret {name}: {replacing} is not its current version") from error

    def restore(self, name: str) -> None:
        """Take a secret out of its deletion window; one that is not in it stays as it is."""
        with aws.errors(f"restoring secret {name}"):
            try:
                self._client.restore_secret(SecretId=name)
            except ClientError as error:
                if aws.code(error) == "ResourceNotFoundException":
                    raise NotFound(f"there is no secret {name}") from error
                raise


def render_credential(credential: Credential) -> str:
    """The JSON shape of the secrets that RDS makes itself, so that every AWS tool understands it."""
    value: dict[str, Any] = {"engine": "postgres", "username": credential.username}
    value["password"] = credential.password
    if credential.host:
        value |= {"host": credential.host, "port": credential.port}
    if credential.dbname:
        value["dbname"] = credential.dbname
    return json.dumps(value, sort_keys=True)


def parse_credential(text: str, *, name: str) -> Credential:
    """Raises NeedsHuman where the value is not a database login; the value is not in the message."""
    try:
        value = json.loads(text)
        return Credential(
            username=str(value["username"]),
            password=str(value["password"]),
            host=str(value.get("host", "")),
            port=int(value.get("port", 5432)),
            dbname=str(value.get("dbname", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NeedsHuman(
            f"secret {name} does not hold a database login (JSON with username and password)",
            runbook="secret-malformed",
        ) from None

"""Secrets Manager: deletion windows, staging labels, and policies scoped to one secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.secretsmanager.exceptions import InvalidRequestException, ResourceExistsException
from moto.secretsmanager.models import SecretsManagerBackend
from moto.secretsmanager.responses import SecretsManagerResponse

from controlplane.localcloud.aws.fidelity.patch import around, put

CURRENT = "AWSCURRENT"


def repair() -> None:
    _deletion_window()
    _staging_labels()
    _scoped_policies()


def _deletion_window() -> None:
    @around(SecretsManagerBackend, "create_secret")
    def name_stays_taken(create: Callable[..., str], self: Any, name: str, **options: Any) -> str:
        """AWS: InvalidRequestException while a secret of that name waits for its deletion (API
        Reference, CreateSecret: "a secret with this name is already scheduled for deletion").
        moto: ResourceExistsException, which a client reads as "it is there, adopt it"."""
        secret = self.secrets.get(name)
        if secret is not None and secret.is_deleted():
            raise InvalidRequestException(
                "You can't create this secret because a secret with this name is already scheduled "
                "for deletion."
            )
        return create(self, name=name, **options)

    @around(SecretsManagerBackend, "put_secret_value")
    def deleted_takes_no_value(put: Callable[..., str], self: Any, secret_id: str, **options: Any) -> str:
        """AWS: InvalidRequestException (API Reference, PutSecretValue, Errors: "The secret is
        scheduled for deletion"). moto: writes the value."""
        secret = self.secrets.get(secret_id)
        if secret is not None and secret.is_deleted():
            raise InvalidRequestException(
                "You can't perform this operation on the secret because it was marked for deletion."
            )
        return put(self, secret_id=secret_id, **options)


def _staging_labels() -> None:
    @around(SecretsManagerBackend, "update_secret_version_stage")
    def current_moves(move: Callable[..., Any], self: Any, secret_id: str, **options: Any) -> Any:
        """AWS: GetSecretValue without a version returns the one labelled AWSCURRENT (API Reference,
        GetSecretValue, VersionStage). moto: remembers a default version of its own, which this call
        does not change, so the old value is returned until the next write."""
        answer = move(self, secret_id=secret_id, **options)
        secret = self.secrets[secret_id]
        for version_id, version in secret.versions.items():
            if CURRENT in version["version_stages"]:
                secret.set_default_version_id(version_id)
        return answer

    @around(SecretsManagerBackend, "_check_with_existing_secrets_and_versions")
    def pending_is_not_overwritten(
        check: Callable[..., Any],
        self: Any,
        secret_name: str,
        token: str | None,
        *values: Any,
        **options: Any,
    ) -> Any:
        """AWS: "You can't modify an existing version, you can only create a new one" (API Reference,
        PutSecretValue, ClientRequestToken); only a version without a value, which RotateSecret leaves,
        can be filled. moto: overwrites whatever is labelled AWSPENDING, and its labels with it."""
        secret = self.secrets.get(secret_name)
        version = None if secret is None else secret.versions.get(token)
        kept = None if version is None else (version.get("secret_string"), version.get("secret_binary"))
        if kept is None or not any(kept):
            return check(self, secret_name, token, *values, **options)
        if kept == values[:2]:
            return secret
        raise ResourceExistsException(
            f"You can't use ClientRequestToken {token} because that value is already in use for a version "
            f"of secret {secret.arn}."
        )


def _scoped_policies() -> None:
    def resource(self: Any) -> str:
        """AWS: a call is authorised against the ARN of the secret that it names (Service
        Authorization Reference, Secrets Manager). moto: against "*", which no policy that is scoped
        to one secret matches; so with IAM enforced every least-privilege role is refused."""
        named = self._get_param("SecretId") or self._get_param("Name")
        if not named:
            return "*"
        secret = self.backend.secrets.get(named)
        if secret is not None:
            return str(secret.arn)
        if named.startswith("arn:"):
            return str(named)
        return f"arn:aws:secretsmanager:{self.region}:{self.current_account}:secret:{named}-AbCdEf"

    put(SecretsManagerResponse, "_determine_resource", resource)

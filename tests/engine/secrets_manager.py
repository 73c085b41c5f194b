"""boto3's Secrets Manager for a data plane that runs beside a harness."""

from __future__ import annotations

from typing import Any

from controlplane.workers.providers.aws_secrets import render_credential
from tests.harness.engine import Harness


class SecretsManager:
    """What the data plane asks of boto3, answered from the harness's world."""

    def __init__(self, harness: Harness) -> None:
        self._secrets = harness.ctx.providers.secrets

    def client(self, service: str, **_: Any) -> SecretsManager:
        assert service == "secretsmanager"
        return self

    def get_secret_value(self, *, SecretId: str, VersionStage: str) -> dict[str, str]:
        assert VersionStage == "AWSCURRENT"
        return {"SecretString": render_credential(self._secrets.read(SecretId))}

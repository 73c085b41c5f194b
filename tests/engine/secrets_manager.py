"""boto3's STS and Secrets Manager for a data plane that runs beside a harness."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from controlplane.localcloud.fakes.aws import FakeInventory
from controlplane.workers.providers.aws_secrets import render_credential
from tests.harness.engine import Harness


class SecretsManager:
    """What the data plane asks of boto3, answered from the harness's world as the clusters' roles allow."""

    def __init__(self, harness: Harness) -> None:
        self._providers = harness.ctx.providers
        self._inventory = FakeInventory(harness.world)
        self._credentials: Any = None

    def __call__(self, *, botocore_session: Any = None) -> SecretsManager:
        if botocore_session is not None:
            self._credentials = botocore_session.get_credentials()
        return self

    def client(self, service: str, **_: Any) -> SecretsManager:
        assert service in ("sts", "secretsmanager")
        return self

    def assume_role(self, *, RoleArn: str, Tags: list[dict[str, str]], **_: Any) -> dict[str, Any]:
        session = {"role": RoleArn.rpartition("/")[2], "tags": {tag["Key"]: tag["Value"] for tag in Tags}}
        keys = {"AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": json.dumps(session)}
        return {"Credentials": keys}

    def get_secret_value(self, *, SecretId: str, VersionStage: str) -> dict[str, str]:
        assert VersionStage == "AWSCURRENT"
        session = json.loads(self._credentials.get_frozen_credentials().token)
        asked = [thing for thing in self._inventory.tagged() if thing.arn == SecretId]
        if not self._providers.identities.readable(session["role"], session["tags"]["placement"], asked):
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetSecretValue")
        return {"SecretString": render_credential(self._providers.secrets.read(SecretId))}

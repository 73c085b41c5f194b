"""The master password that RDS manages in Secrets Manager.

All from the RDS User Guide, "Password management with Amazon RDS and AWS Secrets Manager".
"""

from __future__ import annotations

import json
import secrets
import string
import time
from collections.abc import Callable
from typing import Any

from moto.rds.models import DBCluster, MasterUserSecret, RDSBackend
from moto.secretsmanager.models import SecretsManagerBackend

from controlplane.localcloud.aws.databases import MasterLogin
from controlplane.localcloud.aws.fidelity.patch import around
from controlplane.localcloud.aws.settings import EmulatorSettings

PASSWORD_CHARACTERS = string.ascii_letters + string.digits + "!#$%&*+-.:;<=>?[]^_|~"
PASSWORD_LENGTH = 28


def master_login(cluster: Any) -> MasterLogin:
    """The master user as the account's owner knows it."""
    if cluster.manage_master_user_password:
        secret = cluster.master_user_secret.secret
        coming = getattr(secret, "coming", None)
        value = json.loads(coming or secret.versions[secret.default_version_id]["secret_string"])
        return MasterLogin(value["username"], value["password"])
    return MasterLogin(cluster.master_username, getattr(cluster, "_master_user_password", None))


def repair(settings: EmulatorSettings) -> None:
    @around(MasterUserSecret, "_generate_secret_string")
    def password_is_random(_: Callable[[Any], str], self: Any) -> str:
        """AWS: generates a password for the cluster's own master user. moto: always "admin" with
        the same password, so a mix-up of two clusters' secrets goes unnoticed."""
        password = "".join(secrets.choice(PASSWORD_CHARACTERS) for _ in range(PASSWORD_LENGTH))
        return json.dumps({"username": self.resource.master_username, "password": password})

    @around(MasterUserSecret, "rotate_secret")
    def rotation_makes_a_version(_: Callable[[Any], None], self: Any) -> None:
        """AWS: the new password is AWSCURRENT, the one before AWSPREVIOUS; the server is given it first and
        the label moves a while later. moto: adds a version without a value and leaves no AWSCURRENT that
        can be read."""
        self._status = "rotating"
        self.secret.coming = self._generate_secret_string()
        self.secret.rotated_at = time.monotonic()

    @around(SecretsManagerBackend, "get_secret_value")
    def rotation_ends(get: Callable[..., Any], self: Any, secret_id: str, *rest: Any, **options: Any) -> Any:
        secret = self.secrets.get(secret_id)
        coming = getattr(secret, "coming", None)
        if coming and time.monotonic() >= secret.rotated_at + settings.rds_rotation_seconds:
            secret.coming = None
            self.put_secret_value(
                secret_id=secret_id,
                secret_string=coming,
                secret_binary=None,
                client_request_token=None,
                version_stages=["AWSCURRENT"],
            )
        return get(self, secret_id, *rest, **options)

    @around(RDSBackend, "modify_db_cluster")
    def managed_stays_managed(modify: Callable[..., DBCluster], self: Any, kwargs: Any) -> DBCluster:
        """AWS: asking again for a managed password changes nothing. moto: makes another secret and
        leaks the first."""
        cluster = self.clusters[kwargs["db_cluster_identifier"]]
        if cluster.manage_master_user_password and kwargs.get("manage_master_user_password"):
            kwargs.pop("manage_master_user_password")
        return modify(self, kwargs)

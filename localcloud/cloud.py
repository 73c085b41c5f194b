"""All external systems on one machine: what production rents, this starts.

Real PostgreSQL, real Valkey (two, as in production: a broker that refuses writes when full, a cache
that forgets), AWS with real databases behind it, Stripe and Cloudflare. The product hears of them
by the same variables as in production and can't tell the difference.

    with LocalCloud() as cloud:
        subprocess.run([...], env={**os.environ, **cloud.environment()})
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import stripe as stripe_sdk

from controlplane.localcloud.aws.account import Account, furnish
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.localcloud.credentials import Credentials
from controlplane.localcloud.servers.http_service import HttpService
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.postgres_install import program
from controlplane.localcloud.servers.process import ServiceError
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.localcloud.terraform_mirror import terraform_environment
from controlplane.localcloud.world_folder import WorldFolder

REGISTRY = "controlplane"  # the database and the login that owns it
DEFAULT_ZONE = "tenants.localhost"


class LocalCloud:
    """Everything, started by `start` (or `with`), stopped by `close`.

    `data_dir` None takes a temporary folder that is removed at the end; a given one must be empty or
    localcloud's own, and is cleared first. `aws`, `stripe` and `cloudflare` False leave these out,
    and their variables with them. `aws_environment`, `stripe_arguments` and `cloudflare_arguments`
    turn the emulators, e.g. {"LOCALCLOUD_RDS_CREATE_SECONDS": "3"} or ["--rate-limit", "5"].
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        aws: bool = True,
        stripe: bool = True,
        cloudflare: bool = True,
        zone: str = DEFAULT_ZONE,
        aws_environment: Mapping[str, str] | None = None,
        stripe_arguments: Sequence[str] = (),
        cloudflare_arguments: Sequence[str] = (),
    ) -> None:
        self._world = WorldFolder(data_dir)
        self.data_dir = self._world.path
        self.zone = zone
        self.credentials = Credentials()
        self.account: Account | None = None
        self._webhook_secrets: list[str] = []

        keys = self.credentials
        self.registry = PostgresServer(self.data_dir / "registry", password=keys.registry_admin_password)
        self.broker = ValkeyServer(self.data_dir / "broker", maxmemory_policy="noeviction")
        self.cache = ValkeyServer(self.data_dir / "cache", maxmemory_policy="allkeys-lru")
        self.aws = AwsEmulator(self.data_dir / "aws", environment=aws_environment) if aws else None
        self.stripe = (
            HttpService(
                "controlplane.localcloud.stripe",
                self.data_dir / "stripe",
                arguments=stripe_arguments,
                environment={"LOCALCLOUD_STRIPE_API_KEY": keys.stripe_api_key},
            )
            if stripe
            else None
        )
        self.cloudflare = (
            HttpService(
                "controlplane.localcloud.cloudflare",
                self.data_dir / "cloudflare",
                arguments=["--zone-id", keys.cloudflare_zone_id, *cloudflare_arguments],
                environment={"LOCALCLOUD_CLOUDFLARE_TOKEN": keys.cloudflare_token},
            )
            if cloudflare
            else None
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start everything side by side. Raises ServiceError; nothing is left running then."""
        starts: list[Callable[[], None]] = [self._start_registry, self.broker.start, self.cache.start]
        if self.aws:
            starts.append(self._start_aws)
        starts += [service.start for service in (self.stripe, self.cloudflare) if service]
        try:
            _side_by_side(starts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop everything. A temporary folder is removed."""
        stops: list[Callable[[], None]] = [self.registry.stop, self.broker.stop, self.cache.stop]
        stops += [service.stop for service in (self.aws, self.stripe, self.cloudflare) if service]
        try:
            _side_by_side(stops)
        finally:
            self._world.close()

    def deliver_webhooks_to(self, url: str) -> str:
        """Register a webhook endpoint with Stripe for every event, as an operator would in its
        dashboard; return its signing secret, which `environment` holds from then on."""
        if self.stripe is None:
            raise ServiceError("stripe: left out of this local cloud")
        client = stripe_sdk.StripeClient(
            self.credentials.stripe_api_key,
            base_addresses={"api": self.stripe.url},
        )
        endpoint = client.v1.webhook_endpoints.create({"url": url, "enabled_events": ["*"]})
        if endpoint.secret is None:
            raise ServiceError("stripe: made a webhook endpoint without a secret")
        self._webhook_secrets = [*self._webhook_secrets, endpoint.secret][-2:]
        return endpoint.secret

    def environment(self) -> dict[str, str]:
        """Every variable that tells the product where things are. Holds secrets.

        CONTROLPLANE_STRIPE_WEBHOOK_SECRETS is there once `deliver_webhooks_to` was called.
        """
        keys = self.credentials
        return {
            "CONTROLPLANE_REGISTRY_URL": self.registry.url(
                REGISTRY, user=REGISTRY, password=keys.registry_password
            ),
            "CONTROLPLANE_BROKER_URL": self.broker.url,
            "CONTROLPLANE_CACHE_URL": self.cache.url,
            "CONTROLPLANE_PLATFORM_ZONE": self.zone,
            "CONTROLPLANE_CONFIG_SIGNING_KEYS": keys.signing_keys,
            "DATAPLANE_CONFIG_KEYS": keys.signing_keys,
            "CONTROLPLANE_API_TOKENS": (
                f"support:operator:{keys.operator_token},oversight:operator:{keys.second_operator_token},"
                f"monitoring:viewer:{keys.viewer_token}"
            ),
            **self._terraform_environment(),
            **self._aws_environment(),
            **self._stripe_environment(),
            **self._cloudflare_environment(),
        }

    def _start_registry(self) -> None:
        """The product's login owns its database and is no superuser, as in production."""
        self.registry.start()
        self.registry.create_role(REGISTRY, self.credentials.registry_password)
        self.registry.create_database(REGISTRY, owner=REGISTRY)

    def _start_aws(self) -> None:
        if self.aws:
            self.aws.start()
            self.account = furnish(self.aws.environ())

    def _terraform_environment(self) -> dict[str, str]:
        work_dir = self.data_dir / "terraform"
        return {
            "CONTROLPLANE_TERRAFORM_BINARY": shutil.which("terraform") or "terraform",
            "CONTROLPLANE_TERRAFORM_WORK_DIR": str(work_dir),
            **terraform_environment(work_dir),
        }

    def _aws_environment(self) -> dict[str, str]:
        if self.aws is None or self.account is None:
            return {}
        account, endpoints = self.account, str(self.aws.endpoint_map)
        return {
            **self.aws.environ(),
            "CONTROLPLANE_DATABASE_ENDPOINT_MAP": endpoints,
            "DATAPLANE_ENDPOINT_MAP": endpoints,
            # The emulated clusters have no TLS.
            "CONTROLPLANE_DATABASE_SSLMODE": "prefer",
            "DATAPLANE_SSLMODE": "prefer",
            "CONTROLPLANE_TERRAFORM_STATE_BUCKET": account.state_bucket,
            "CONTROLPLANE_COPY_BUCKET": account.copy_bucket,
            "CONTROLPLANE_PG_DUMP": str(program("pg_dump")),
            "CONTROLPLANE_CERTIFICATE_KEY": self.credentials.certificate_key,
            "CONTROLPLANE_VPC_ID": account.vpc_id,
            "CONTROLPLANE_SUBNET_IDS": ",".join(account.subnet_ids),
            "CONTROLPLANE_APP_SECURITY_GROUP_IDS": account.app_security_group_id,
            "CONTROLPLANE_PERMISSIONS_BOUNDARY_ARN": account.permissions_boundary_arn,
            "CONTROLPLANE_APP_ROLE_ARN": account.app_role_arn,
            "CONTROLPLANE_CLUSTER_PARAMETER_GROUP": account.cluster_parameter_group,
        }

    def _stripe_environment(self) -> dict[str, str]:
        if self.stripe is None:
            return {}
        hooks = {"CONTROLPLANE_STRIPE_WEBHOOK_SECRETS": ",".join(self._webhook_secrets)}
        return {
            "CONTROLPLANE_STRIPE_API_KEY": self.credentials.stripe_api_key,
            "CONTROLPLANE_STRIPE_API_BASE": self.stripe.url,
            "CONTROLPLANE_STRIPE_LIVEMODE": "false",
            **(hooks if self._webhook_secrets else {}),
        }

    def _cloudflare_environment(self) -> dict[str, str]:
        if self.cloudflare is None:
            return {}
        return {
            "CONTROLPLANE_CLOUDFLARE_API_TOKEN": self.credentials.cloudflare_token,
            "CONTROLPLANE_CLOUDFLARE_API_BASE": f"{self.cloudflare.url}/client/v4",
            "CONTROLPLANE_CLOUDFLARE_ZONE_ID": self.credentials.cloudflare_zone_id,
        }


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """For `set -a; . FILE; set +a`. Nobody else may read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.writelines(f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    draft.replace(path)


def _side_by_side(actions: list[Callable[[], Any]]) -> None:
    """Run all of them, then raise the first error."""
    with ThreadPoolExecutor(max_workers=len(actions)) as pool:
        running = [pool.submit(action) for action in actions]
    for done in running:
        done.result()

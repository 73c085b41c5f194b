"""The composition root of the workers: from settings to a `Context` with the real providers."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from pathlib import Path

from controlplane import migration_project
from controlplane.certificate import CertificateKey
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.errors import ControlPlaneError, Refused
from controlplane.settings import TerraformSettings, WorkerSettings, for_child
from controlplane.store.registry import Registry
from controlplane.workers.engine.context import (
    Context,
    Notify,
    Platform,
    Providers,
)
from controlplane.workers.providers.aws_clusters import AwsClusters
from controlplane.workers.providers.aws_identities import AwsIdentities
from controlplane.workers.providers.aws_inventory import AwsInventory
from controlplane.workers.providers.aws_quotas import AwsQuotas
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.aws_snapshots import AwsSnapshots
from controlplane.workers.providers.cloudflare_hostnames import CloudflareHostnames
from controlplane.workers.providers.config_cache import RedisConfigCache
from controlplane.workers.providers.databases import PostgresDatabases, new_password
from controlplane.workers.providers.databases.migrations import load
from controlplane.workers.providers.databases.sessions import Sessions
from controlplane.workers.providers.dumps import PgDump, S3Dumps
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.moves import PostgresMoves
from controlplane.workers.providers.stripe_billing import StripeBilling
from controlplane.workers.providers.terraform import TerraformRunner, lock_owner
from controlplane.workers.providers.webhook import Webhook

log = logging.getLogger(__name__)

TERRAFORM = Path(__file__).parents[1] / "terraform"
"""In a checkout a link to the repository's folder `terraform/`, in a package its files."""
STACKS = TERRAFORM / "stacks"
STACK_NAMES = ("tenant", "cluster")


def context_from_environment(notify: Notify | None = None) -> Context:
    """Raises SettingsError with a line for each mistake, CatalogueError likewise. Without `notify`
    nobody is notified: the polling worker finds by itself what is due."""
    return context(WorkerSettings.from_environment(), notify or _nobody)


def stack_versions() -> dict[str, str]:
    """Stack → a digest of its files. Raises Refused where this installation has not all of them."""
    return {stack: _version(stack) for stack in STACK_NAMES}


def prepare_from_environment() -> None:
    """Initialise Terraform's stacks before the first customer needs one: seconds, or with the public
    registry the download of 700 MB. What goes wrong is only told; the run that needs it tries again."""
    try:
        _terraform(TerraformSettings.from_environment()).prepare(STACK_NAMES)
    except ControlPlaneError as error:
        log.warning("terraform could not be prepared: %s", error)


def context(settings: WorkerSettings, notify: Notify) -> Context:
    region = settings.aws_region
    secrets = AwsSecrets(region=region)
    catalogue_file = settings.plan_catalogue
    endpoints = EndpointMap(settings.database_endpoint_map)
    return Context(
        registry=Registry(settings.registry_url),
        providers=Providers(
            terraform=_terraform(settings),
            clusters=AwsClusters(region=region),
            snapshots=AwsSnapshots(region=region),
            quotas=AwsQuotas(region=region),
            secrets=secrets,
            identities=AwsIdentities(region=region),
            inventory=AwsInventory(region=region, bucket=settings.terraform_state_bucket),
            databases=PostgresDatabases(
                secrets,
                endpoints,
                sslmode=settings.database_sslmode,
                sslrootcert=settings.database_sslrootcert,
                projects=settings.tenant_migrations,
            ),
            moves=PostgresMoves(
                secrets,
                endpoints,
                sslmode=settings.database_sslmode,
                sslrootcert=settings.database_sslrootcert,
            ),
            hostnames=CloudflareHostnames(
                settings.cloudflare_api_token,
                settings.cloudflare_zone_id,
                settings.cloudflare_api_base or "",
            ),
            cache=RedisConfigCache(settings.cache_url, settings.config_signing_keys),
            billing=StripeBilling(settings.stripe_api_key, settings.stripe_api_base or ""),
            dumps=_dumps(settings, secrets, endpoints),
        ),
        catalogue=parse_catalogue(catalogue_file.read_text(), source=str(catalogue_file)),
        platform=Platform(
            environment=settings.environment,
            zone=settings.platform_zone,
            livemode=settings.stripe_livemode,
            stripe_account=settings.stripe_account,
            vpc_id=settings.vpc_id,
            subnet_ids=settings.subnet_ids,
            app_security_group_ids=settings.app_security_group_ids,
            app_role_arn=settings.app_role_arn,
            cluster_parameter_group=settings.cluster_parameter_group,
            permissions_boundary_arn=settings.permissions_boundary_arn,
            lease=settings.lease_seconds,
            heartbeat=settings.heartbeat_seconds,
            republish_interval=settings.republish_interval,
            compare_interval=settings.compare_interval,
        ),
        migrations=settings.tenant_migrations,
        release=_newest(settings.tenant_migrations),
        stacks=stack_versions(),
        holder=f"{socket.gethostname()}/{os.getpid()}",
        lock_owner=lock_owner(),
        notify=notify,
        new_password=new_password,
        certificate_key=None
        if settings.certificate_key is None
        else CertificateKey(*settings.certificate_key),
        listener=None
        if settings.notification_url is None
        else Webhook(settings.notification_url, settings.notification_secrets),
    )


def _dumps(settings: WorkerSettings, secrets: AwsSecrets, endpoints: EndpointMap) -> S3Dumps:
    sessions = Sessions(
        secrets,
        endpoints,
        sslmode=settings.database_sslmode,
        sslrootcert=settings.database_sslrootcert,
        connect_timeout=20,
        statement_timeout=60,
        lock_timeout=5,
    )
    return S3Dumps(
        PgDump(sessions, program=settings.pg_dump), region=settings.aws_region, bucket=settings.copy_bucket
    )


def _newest(folder: Path) -> str | None:
    return None if migration_project.is_project(folder) else load(folder)[-1].number


def _terraform(settings: TerraformSettings) -> TerraformRunner:
    return TerraformRunner(
        binary=settings.terraform_binary,
        stacks_dir=STACKS,
        work_dir=settings.terraform_work_dir,
        state_bucket=settings.terraform_state_bucket,
        region=settings.aws_region,
        environment=for_child(),
    )


def _nobody(task: str, args: list[str]) -> None:
    log.debug("no broker: %s %s is found by polling", task, args)


def _version(stack: str) -> str:
    """A digest of the stack's own files and of its module's; a README makes no difference."""
    digest = hashlib.sha256()
    for folder in (STACKS / stack, TERRAFORM / "modules" / stack):
        if not (folder / "main.tf").is_file():
            raise Refused(
                f"{folder}: expected a part of the Terraform stack {stack!r}, found none: this installation"
                " of tenant-controlplane is incomplete, install it again"
            )
        for path in sorted(folder.iterdir()):
            if path.suffix == ".tf" or path.name == ".terraform.lock.hcl":
                digest.update(f"{folder.parent.name}/{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]

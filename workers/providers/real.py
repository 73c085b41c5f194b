"""Every provider that speaks to a vendor, made from the settings of a worker."""

from __future__ import annotations

from pathlib import Path

from controlplane.settings import TerraformSettings, WorkerSettings, for_child
from controlplane.workers.providers.aws_clusters import AwsClusters
from controlplane.workers.providers.aws_identities import AwsIdentities
from controlplane.workers.providers.aws_inventory import AwsInventory
from controlplane.workers.providers.aws_quotas import AwsQuotas
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.aws_snapshots import AwsSnapshots
from controlplane.workers.providers.cloudflare_hostnames import CloudflareHostnames
from controlplane.workers.providers.config_cache import RedisConfigCache
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.databases.sessions import Sessions
from controlplane.workers.providers.dumps import PgDump, S3Dumps
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.moves import PostgresMoves
from controlplane.workers.providers.ports import Providers
from controlplane.workers.providers.stripe_billing import StripeBilling
from controlplane.workers.providers.terraform import TerraformRunner

TERRAFORM = Path(__file__).parents[1] / "terraform"
"""In a checkout a link to the repository's folder `terraform/`, in a package its files."""
STACKS = TERRAFORM / "stacks"


def providers(settings: WorkerSettings) -> Providers:
    region = settings.aws_region
    secrets = AwsSecrets(region=region)
    endpoints = EndpointMap(settings.database_endpoint_map)
    return Providers(
        terraform=terraform(settings),
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
    )


def terraform(settings: TerraformSettings) -> TerraformRunner:
    return TerraformRunner(
        binary=settings.terraform_binary,
        stacks_dir=STACKS,
        work_dir=settings.terraform_work_dir,
        state_bucket=settings.terraform_state_bucket,
        region=settings.aws_region,
        environment=for_child(),
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

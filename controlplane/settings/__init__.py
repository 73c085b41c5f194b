"""The environment, read once, in one place, all of it or nothing.

Every setting is a field below, and `CONTROLPLANE_` and the field's name in capitals is its variable.
Settings come in groups, one for each thing that a process may speak to, and a process is a class of the
groups that it reads: the web process holds no Cloudflare token, even where the variable is there, a fault
in one can't stop it, and mypy refuses the line that asks for it.

All mistakes are found at once, each on a line that names the variable and what was expected. Values
of secrets are in no message and in no repr. An empty variable counts as one that is not set.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from controlplane.domain.errors import Refused
from controlplane.domain.safe_repr import safe_repr
from controlplane.settings import readers as read
from controlplane.settings.readers import ApiToken, InvalidValue

PREFIX = "CONTROLPLANE_"
_PLANS = Path(__file__).parents[1] / "plans.toml"


class SettingsError(Refused):
    """The environment can't be used; `errors` has a line for each mistake."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


def for_child(*names: str) -> dict[str, str]:
    """This process' environment, for one that it starts: all of it, or of `names` what is set."""
    return {name: value for name, value in os.environ.items() if not names or name in names}


def _from(
    reader: Callable[[str], Any], *, default: Any = MISSING, secret: bool = False, variable: str | None = None
) -> Any:
    """A setting that `reader` reads; it must be set where it has no default."""
    return field(default=default, repr=not secret, metadata={"read": reader, "variable": variable})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process reads. Durations and intervals are in seconds."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Self:
        """`env`: instead of this process' own. Raises SettingsError with all mistakes."""
        env = os.environ if env is None else env
        found: dict[str, Any] = {}
        errors = []
        for setting in fields(cls):
            try:
                found[setting.name] = _read(setting, env)
            except InvalidValue as error:
                errors.append(f"{_variable(setting)}: {error}")
        errors.extend(_contradictions(found))
        if errors:
            raise SettingsError(errors)
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Settings):
    """The command line's."""

    api_url: str = _from(read.api_base)
    api_token: str = _from(read.text(r"[ -~]{1,1000}", "printable ASCII"), secret=True)


@dataclass(frozen=True, kw_only=True)
class RegistrySettings(Settings):
    registry_url: str = _from(read.postgresql_url, secret=True)


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(Settings):
    broker_url: str = _from(read.redis_url, secret=True)


@dataclass(frozen=True, kw_only=True)
class SharedSettings(BrokerSettings, RegistrySettings):
    """What the web process and the workers must agree on."""

    stripe_livemode: bool = _from(read.boolean)
    stripe_account: str | None = _from(
        read.text(r"acct_[A-Za-z0-9]{1,250}", "a Stripe account's id (acct_…)"), default=None
    )
    """Whose events are acted on where they name one, as an organisation's do."""
    platform_zone: str = _from(read.zone)
    config_signing_keys: tuple[tuple[str, bytes], ...] = _from(read.signing_keys, secret=True)
    """Key ids and keys; the first signs, all verify."""


@dataclass(frozen=True, kw_only=True)
class ApiSettings(Settings):
    api_tokens: tuple[ApiToken, ...] = _from(read.api_tokens, secret=True)
    waiting_per_address: int = _from(read.whole(0, 100_000), default=100)
    """Connections of one address that have sent no whole request, in each web process; 0: no bound."""


@dataclass(frozen=True, kw_only=True)
class WebSettings(ApiSettings, SharedSettings):
    """The web process has no cloud credential."""

    stripe_webhook_secrets: tuple[str, ...] = _from(read.stripe_signing_secrets, secret=True)


@dataclass(frozen=True, kw_only=True)
class DutySettings(Settings):
    """How often what happens by the clock does."""

    duty_interval: float = _from(read.seconds(1, 60), default=5.0)
    republish_interval: float = _from(read.seconds(10, 3600), default=300.0)
    compare_interval: float = _from(read.seconds(60, 86400), default=900.0)


@dataclass(frozen=True, kw_only=True)
class TerraformSettings(Settings):
    aws_region: str = _from(read.aws_region, variable="AWS_REGION")
    terraform_binary: str = _from(read.program, default="terraform")
    terraform_work_dir: Path = _from(read.absolute_path)
    terraform_state_bucket: str = _from(read.s3_bucket)
    vpc_id: str = _from(read.vpc_id)
    subnet_ids: tuple[str, ...] = _from(read.subnet_ids)
    app_security_group_ids: tuple[str, ...] = _from(read.security_group_ids)
    permissions_boundary_arn: str = _from(read.iam_policy)
    app_role_arn: str = _from(read.iam_role)
    cluster_parameter_group: str | None = _from(
        read.text(r"[a-z](?:[a-z0-9]|-(?!-)){0,253}[a-z0-9]", "an RDS cluster parameter group's name"),
        default=None,
    )
    """Shared by all clusters; moves between them need one with `rds.logical_replication = 1`."""
    subnet_group: str | None = _from(
        read.text(r"[a-z0-9 ._-]{1,255}", "an RDS subnet group's name, in lower case"), default=None
    )
    """New clusters share it; without, each has one of its own."""


@dataclass(frozen=True, kw_only=True)
class StackSettings(TerraformSettings, RegistrySettings):
    """What publishing a release of the Terraform stacks takes."""


@dataclass(frozen=True, kw_only=True)
class CertificateSettings(Settings):
    certificate_key: tuple[str, bytes] | None = _from(read.certificate_key, default=None, secret=True)
    """Signs deletion certificates; without it they are not signed."""


@dataclass(frozen=True, kw_only=True)
class LeaseSettings(Settings):
    lease_seconds: float = _from(read.seconds(10, 600), default=10.0)
    heartbeat_seconds: float = _from(read.seconds(1, 60), default=3.0)


@dataclass(frozen=True, kw_only=True)
class StripeSettings(Settings):
    """What reads from Stripe."""

    stripe_api_key: str = _from(read.stripe_api_key, secret=True)
    stripe_api_base: str | None = _from(read.api_base, default=None)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(
    CertificateSettings, TerraformSettings, StripeSettings, SharedSettings, DutySettings, LeaseSettings
):
    """Workers hold every credential but the callers' tokens."""

    environment: str = _from(read.environment_name, default="production")
    cache_url: str = _from(read.redis_url, secret=True)
    cloudflare_api_token: str = _from(read.cloudflare_token, secret=True)
    cloudflare_api_base: str | None = _from(read.api_base, default=None)
    cloudflare_zone_id: str = _from(read.cloudflare_zone_id)

    database_endpoint_map: Path | None = _from(read.absolute_path, default=None)
    database_sslmode: str = _from(read.sslmode, default="verify-full")
    database_sslrootcert: Path | None = _from(read.authorities, default=None)
    """As libpq's; verify-full and verify-ca need the authorities, or the first customer would find out."""

    plan_catalogue: Path = _from(read.existing_file, default=_PLANS)
    tenant_migrations: Path = _from(read.existing_folder)
    copy_bucket: str | None = _from(read.s3_bucket, default=None)
    """Where dumps of tenants' databases are kept; without it none can be made."""
    pg_dump: str = _from(read.program, default="pg_dump")

    notification_url: str | None = _from(read.api_base, default=None)
    notification_secrets: tuple[bytes, ...] = _from(read.notification_secrets, default=(), secret=True)
    """The first is the newest; all sign, so that a receiver may change over at any moment."""


def names() -> set[str]:
    """The variables of all processes."""
    return {_variable(f) for cls in (WebSettings, WorkerSettings, ClientSettings) for f in fields(cls)}


def _variable(setting: Field[Any]) -> str:
    return setting.metadata["variable"] or PREFIX + setting.name.upper()


def _read(setting: Field[Any], env: Mapping[str, str]) -> Any:
    variable = _variable(setting)
    value = env.get(variable, "").strip()
    if value:
        try:
            return setting.metadata["read"](value)
        except InvalidValue as error:
            got = f", got {safe_repr(value)}" if setting.repr else ""
            raise InvalidValue(f"expected {error}{got}") from None
    if setting.default is not MISSING:
        return setting.default
    strangers = {name for name in env if name.startswith(PREFIX)} - names()
    alike = difflib.get_close_matches(variable, sorted(strangers), n=1, cutoff=0.85)
    raise InvalidValue("expected to be set" + (f"; is {alike[0]} a misspelling of it?" if alike else ""))


def _contradictions(found: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong between settings that are each good."""
    lease, heartbeat = found.get("lease_seconds"), found.get("heartbeat_seconds")
    if lease and heartbeat and heartbeat * 3 > lease:
        yield (
            f"{PREFIX}HEARTBEAT_SECONDS: expected at most a third of the lease ({lease:g}), "
            f"so that one lost heartbeat does not lose it, got {heartbeat:g}"
        )
    broker, cache = found.get("broker_url"), found.get("cache_url")
    if broker and cache and _server(broker) == _server(cache):
        yield f"{PREFIX}CACHE_URL: expected another server than the broker's, which must never evict"
    key, livemode = found.get("stripe_api_key"), found.get("stripe_livemode")
    if key and livemode is not None and ("_live_" in key[:8]) is not livemode:
        yield f"{PREFIX}STRIPE_LIVEMODE: expected {str(not livemode).lower()}, as the API key is of that mode"
    sslmode, root = found.get("database_sslmode"), found.get("database_sslrootcert", ...)
    if sslmode in {"verify-ca", "verify-full"} and root is None:
        yield (
            f"{PREFIX}DATABASE_SSLROOTCERT: expected to be set, as {PREFIX}DATABASE_SSLMODE is {sslmode}: "
            f"{read.AUTHORITIES}"
        )
    if sslmode not in {None, "verify-full"} and root == read.SYSTEM_AUTHORITIES:
        yield (f"{PREFIX}DATABASE_SSLMODE: expected verify-full with the authorities `system`, got {sslmode}")
    if found.get("notification_url") and found.get("notification_secrets") == ():
        needed = f"expected to be set, as {PREFIX}NOTIFICATION_URL is: notifications are signed"
        yield f"{PREFIX}NOTIFICATION_SECRETS: {needed}"


def _server(url: str) -> tuple[str | None, int]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 6379

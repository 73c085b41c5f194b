"""The environment, read once, in one place, all of it or nothing.

Every setting is a field below, and `CONTROLPLANE_` and the field's name in capitals is its variable.
Settings come in groups, one for each thing that a process may speak to, and a process reads only the
groups it asks for: the web process holds no Cloudflare token, even where the variable is there, and a
fault in one can't stop it. Fields of other groups are not there, and asking for one says so.

All mistakes are found at once, each on a line that names the variable and what was expected. Values
of secrets are in no message and in no repr. An empty variable counts as one that is not set.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from controlplane import variables as read
from controlplane.domain.errors import Refused
from controlplane.domain.safe_repr import safe_repr
from controlplane.variables import ApiToken, InvalidValue

PREFIX = "CONTROLPLANE_"
CLIENT = frozenset({"CONTROLPLANE_API_URL", "CONTROLPLANE_API_TOKEN"})
"""What the command line reads of the environment itself: the address and token of the API."""
_PLANS = Path(__file__).with_name("plans.toml")


class SettingsError(Refused):
    """The environment can't be used; `errors` has a line for each mistake."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


class Group(StrEnum):
    REGISTRY = "registry"
    BROKER = "broker"
    CACHE = "cache"
    STRIPE = "stripe"  # calls to its API
    WEBHOOK = "webhook"  # events from it
    CLOUDFLARE = "cloudflare"
    PLATFORM = "platform"
    SIGNING = "signing"
    API = "api"
    AWS = "aws"
    TERRAFORM = "terraform"
    DATABASES = "databases"
    CATALOGUE = "catalogue"
    MIGRATIONS = "migrations"
    LEAVING = "leaving"  # copies, certificates
    NOTIFICATIONS = "notifications"


WEB = (Group.REGISTRY, Group.BROKER, Group.WEBHOOK, Group.PLATFORM, Group.SIGNING, Group.API)
WORKER = tuple(group for group in Group if group not in {Group.WEBHOOK, Group.API})


def _from(
    reader: Callable[[str], Any], *groups: Group, variable: str | None = None, default: Any = ...
) -> dict[str, Any]:
    """How a field is read, for its metadata. Every process has it where it names no group; it must be
    set where it has no default."""
    return {"read": reader, "groups": frozenset(groups), "variable": variable, "default": default}


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Settings:
    """Durations and intervals are in seconds."""

    environment: str = field(metadata=_from(read.environment_name, default="production"))
    lease_seconds: float = field(metadata=_from(read.seconds(10, 600), default=15.0))
    heartbeat_seconds: float = field(metadata=_from(read.seconds(1, 60), default=3.0))
    sweep_interval: float = field(metadata=_from(read.seconds(1, 60), default=5.0))
    republish_interval: float = field(metadata=_from(read.seconds(10, 3600), default=300.0))
    compare_interval: float = field(metadata=_from(read.seconds(60, 86400), default=900.0))

    registry_url: str = field(repr=False, metadata=_from(read.postgresql_url, Group.REGISTRY))
    broker_url: str = field(repr=False, metadata=_from(read.redis_url, Group.BROKER))
    cache_url: str = field(repr=False, metadata=_from(read.redis_url, Group.CACHE))

    stripe_api_key: str = field(repr=False, metadata=_from(read.stripe_api_key, Group.STRIPE))
    stripe_api_base: str | None = field(metadata=_from(read.api_base, Group.STRIPE, default=None))
    stripe_webhook_secrets: tuple[str, ...] = field(
        repr=False, metadata=_from(read.stripe_signing_secrets, Group.WEBHOOK)
    )
    stripe_account: str | None = field(
        metadata=_from(
            read.text(r"acct_[A-Za-z0-9]{1,250}", "a Stripe account's id (acct_…)"),
            Group.STRIPE,
            Group.WEBHOOK,
            default=None,
        )
    )
    """Whose events are acted on where they name one, as an organisation's do."""
    stripe_livemode: bool = field(metadata=_from(read.boolean, Group.STRIPE, Group.WEBHOOK))

    cloudflare_api_token: str = field(repr=False, metadata=_from(read.cloudflare_token, Group.CLOUDFLARE))
    cloudflare_api_base: str | None = field(metadata=_from(read.api_base, Group.CLOUDFLARE, default=None))
    cloudflare_zone_id: str = field(metadata=_from(read.cloudflare_zone_id, Group.CLOUDFLARE))

    platform_zone: str = field(metadata=_from(read.zone, Group.PLATFORM))
    config_signing_keys: tuple[tuple[str, bytes], ...] = field(
        repr=False, metadata=_from(read.signing_keys, Group.SIGNING)
    )
    """Key ids and keys; the first signs, all verify."""
    api_tokens: tuple[ApiToken, ...] = field(repr=False, metadata=_from(read.api_tokens, Group.API))
    waiting_per_address: int = field(metadata=_from(read.whole(0, 100_000), Group.API, default=100))
    """Connections of one address that have sent no whole request, in each web process; 0: no bound."""

    aws_region: str = field(metadata=_from(read.aws_region, Group.AWS, variable="AWS_REGION"))
    terraform_binary: str = field(metadata=_from(read.program, Group.TERRAFORM, default="terraform"))
    terraform_work_dir: Path = field(metadata=_from(read.absolute_path, Group.TERRAFORM))
    terraform_state_bucket: str = field(metadata=_from(read.s3_bucket, Group.TERRAFORM))
    vpc_id: str = field(metadata=_from(read.vpc_id, Group.TERRAFORM))
    subnet_ids: tuple[str, ...] = field(metadata=_from(read.subnet_ids, Group.TERRAFORM))
    app_security_group_ids: tuple[str, ...] = field(metadata=_from(read.security_group_ids, Group.TERRAFORM))
    permissions_boundary_arn: str = field(metadata=_from(read.iam_policy, Group.TERRAFORM))
    app_role_arn: str = field(metadata=_from(read.iam_role, Group.TERRAFORM))
    cluster_parameter_group: str | None = field(
        metadata=_from(
            read.text(r"[a-z](?:[a-z0-9]|-(?!-)){0,253}[a-z0-9]", "an RDS cluster parameter group's name"),
            Group.TERRAFORM,
            default=None,
        )
    )
    """Shared by all clusters; moves between them need one with `rds.logical_replication = 1`."""
    database_endpoint_map: Path | None = field(
        metadata=_from(read.absolute_path, Group.DATABASES, default=None)
    )

    database_sslmode: str = field(metadata=_from(read.sslmode, Group.DATABASES, default="verify-full"))
    database_sslrootcert: Path | None = field(metadata=_from(read.authorities, Group.DATABASES, default=None))
    """As libpq's; verify-full and verify-ca need the authorities, or the first customer would find out."""

    plan_catalogue: Path = field(metadata=_from(read.existing_file, Group.CATALOGUE, default=_PLANS))
    tenant_migrations: Path = field(metadata=_from(read.existing_folder, Group.MIGRATIONS))

    copy_bucket: str | None = field(metadata=_from(read.s3_bucket, Group.LEAVING, default=None))
    """Where dumps of tenants' databases are kept; without it none can be made."""
    pg_dump: str = field(metadata=_from(read.program, Group.LEAVING, default="pg_dump"))
    certificate_key: tuple[str, bytes] | None = field(
        repr=False, metadata=_from(read.certificate_key, Group.LEAVING, default=None)
    )
    """Signs deletion certificates; without it they are not signed."""

    notification_url: str | None = field(metadata=_from(read.api_base, Group.NOTIFICATIONS, default=None))
    notification_secrets: tuple[bytes, ...] = field(
        repr=False, metadata=_from(read.notification_secrets, Group.NOTIFICATIONS, default=())
    )
    """The first is the newest; all sign, so that a receiver may change over at any moment."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str], *, require: Iterable[str] = Group) -> Self:
        """Read what every process has and the fields of the groups in `require`.

        Raises SettingsError with all mistakes, ValueError where a group is none.
        """
        groups = {Group(group) for group in require}
        settings, errors = cls(), []
        for setting in fields(cls):
            if setting.metadata["groups"] and not setting.metadata["groups"] & groups:
                continue
            try:
                object.__setattr__(settings, setting.name, _read(setting, env))
            except InvalidValue as error:
                errors.append(f"{_variable(setting)}: {error}")
        errors.extend(_contradictions(vars(settings)))
        if errors:
            raise SettingsError(errors)
        return settings

    def __repr__(self) -> str:
        found = vars(self)
        told = ", ".join(f"{f.name}={found[f.name]!r}" for f in fields(self) if f.repr and f.name in found)
        return f"Settings({told})"

    if not TYPE_CHECKING:  # or a misspelt field would pass for one

        def __getattr__(self, name: str) -> Any:
            setting = type(self).__dataclass_fields__.get(name)
            if setting is None:
                raise AttributeError(f"Settings has no field {name}")
            groups = " or ".join(sorted(setting.metadata["groups"]))
            raise SettingsError([f"{_variable(setting)}: not read, this process did not ask for {groups}"])


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
    if setting.metadata["default"] is not ...:
        return setting.metadata["default"]
    known = {_variable(f) for f in fields(Settings)} | CLIENT
    strangers = {name for name in env if name.startswith(PREFIX)} - known
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

import base64
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Refused
from controlplane.settings import (
    PREFIX,
    ApiSettings,
    BrokerSettings,
    ClientSettings,
    RegistrySettings,
    Settings,
    SettingsError,
    TerraformSettings,
    WebSettings,
    WorkerSettings,
    for_child,
)
from controlplane.settings.readers import API_ROLES, ApiToken
from controlplane.web.auth import Role
from tests.tls import authority_files

TLS = json.loads((Path(__file__).parent / "vectors" / "tls.json").read_text())["cases"]
KEY, OLD_KEY = bytes(range(32)), bytes(range(1, 49))
SECRET = "canary-4f1c"  # in every secret below, and nowhere else
TOKEN = f"{SECRET}-0123456789-abcdef"

ENVIRONMENT = {
    "REGISTRY_URL": f"postgresql://app:{SECRET}@db.example:5432/registry",
    "BROKER_URL": f"redis://:{SECRET}@broker.example:6379/0",
    "CACHE_URL": f"rediss://u:{SECRET}@cache.example",
    "STRIPE_API_KEY": "sk_test_canary4f1c",
    "STRIPE_LIVEMODE": "false",
    "STRIPE_WEBHOOK_SECRETS": f"whsec_{SECRET}, whsec_old-{SECRET}",
    "CLOUDFLARE_API_TOKEN": TOKEN,
    "CLOUDFLARE_ZONE_ID": "0123456789abcdef0123456789abcdef",
    "PLATFORM_ZONE": "Tenants.Example.com.",
    "CONFIG_SIGNING_KEYS": f"k1:{base64.b64encode(KEY).decode()},k0:{base64.b64encode(OLD_KEY).decode()}",
    "API_TOKENS": f"support:operator:{TOKEN},grafana:viewer:v:{TOKEN}",
    "TERRAFORM_WORK_DIR": "/var/lib/terraform",
    "TERRAFORM_STATE_BUCKET": "acme-terraform-state",
    "VPC_ID": "vpc-0123abcd",
    "SUBNET_IDS": "subnet-0123abcd, subnet-0123abce",
    "APP_SECURITY_GROUP_IDS": "sg-0123abcd",
    "PERMISSIONS_BOUNDARY_ARN": "arn:aws:iam::123456789012:policy/tenant-boundary",
    "APP_ROLE_ARN": "arn:aws:iam::123456789012:role/app",
    "DATABASE_SSLROOTCERT": "system",
    "TENANT_MIGRATIONS": str(Path(__file__).parent),
    "CERTIFICATE_KEY": f"c1:{base64.b64encode(KEY).decode()}",
    "NOTIFICATION_URL": "https://hooks.example/tenants",
    "NOTIFICATION_SECRETS": f"whsec_{base64.b64encode(KEY).decode()}",
}


@dataclass(frozen=True, kw_only=True)
class Everything(WebSettings, WorkerSettings):
    """For the tests of single settings."""


def environment(**changes: str | None) -> dict[str, str]:
    """A complete environment with some variables changed; None leaves one out."""
    values = {PREFIX + name: value for name, value in (ENVIRONMENT | changes).items() if value is not None}
    return {"AWS_REGION": "eu-central-1", "PATH": "/usr/bin"} | values


def errors_of(**changes: str | None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Everything.from_environment(environment(**changes))
    return caught.value.errors


def test_a_complete_environment_is_read_and_typed() -> None:
    settings = Everything.from_environment(environment())
    assert settings.registry_url == ENVIRONMENT["REGISTRY_URL"]
    assert settings.stripe_webhook_secrets == (f"whsec_{SECRET}", f"whsec_old-{SECRET}")
    assert settings.stripe_livemode is False
    assert settings.platform_zone == "tenants.example.com"
    assert settings.config_signing_keys == (("k1", KEY), ("k0", OLD_KEY))
    assert settings.api_tokens == (
        ApiToken("support", "operator", TOKEN),
        ApiToken("grafana", "viewer", f"v:{TOKEN}"),
    )
    assert settings.aws_region == "eu-central-1"
    assert settings.subnet_ids == ("subnet-0123abcd", "subnet-0123abce")
    assert settings.terraform_work_dir == Path("/var/lib/terraform")
    assert settings.certificate_key == ("c1", KEY)
    assert (settings.notification_url, settings.notification_secrets) == (
        "https://hooks.example/tenants",
        (KEY,),
    )


def test_the_defaults_are_those_of_production() -> None:
    settings = Everything.from_environment(environment())
    assert settings.environment == "production"
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.duty_interval) == (10, 3, 5)
    assert (settings.stripe_api_base, settings.cloudflare_api_base) == (None, None)
    assert settings.database_endpoint_map is None
    assert settings.database_sslmode == "verify-full"
    assert settings.terraform_binary == "terraform"
    assert (settings.waiting_per_address, settings.stripe_account) == (100, None)
    assert (settings.cluster_parameter_group, settings.subnet_group) == (None, None)
    assert settings.plan_catalogue.name == "plans.toml"


def test_what_leaving_needs_may_be_left_out_but_notices_are_never_unsigned() -> None:
    without = dict.fromkeys(("CERTIFICATE_KEY", "NOTIFICATION_URL", "NOTIFICATION_SECRETS"))
    settings = Everything.from_environment(environment(**without))
    assert (settings.certificate_key, settings.notification_url, settings.notification_secrets) == (
        None,
        None,
        (),
    )
    assert (settings.copy_bucket, settings.pg_dump) == (None, "pg_dump")
    assert errors_of(NOTIFICATION_SECRETS=None) == (
        "CONTROLPLANE_NOTIFICATION_SECRETS: expected to be set, as CONTROLPLANE_NOTIFICATION_URL is:"
        " notifications are signed",
    )


def test_an_empty_variable_is_not_set() -> None:
    empty = {"STRIPE_API_BASE": "", "LEASE_SECONDS": " "}
    settings = Everything.from_environment(environment(**empty))
    assert (settings.stripe_api_base, settings.lease_seconds) == (None, 10)
    assert errors_of(VPC_ID="") == ("CONTROLPLANE_VPC_ID: expected to be set",)


def test_optional_settings_are_taken_where_they_are_given() -> None:
    given = {
        "ENVIRONMENT": "staging",
        "STRIPE_API_BASE": "http://127.0.0.1:12111/",
        "CLOUDFLARE_API_BASE": "https://api.cloudflare.com/client/v4",
        "DATABASE_ENDPOINT_MAP": "/tmp/map.json",
        "LEASE_SECONDS": "15",
        "HEARTBEAT_SECONDS": "2.5",
    }
    settings = Everything.from_environment(environment(**given))
    assert settings.environment == "staging"
    assert settings.stripe_api_base == "http://127.0.0.1:12111"
    assert settings.cloudflare_api_base == "https://api.cloudflare.com/client/v4"
    assert settings.database_endpoint_map == Path("/tmp/map.json")
    assert (settings.lease_seconds, settings.heartbeat_seconds) == (15, 2.5)


@pytest.mark.parametrize("case", TLS, ids=lambda case: f"{case['sslmode']}-{case['sslrootcert']}")
def test_databases_that_could_not_be_verified_stop_the_start(case: dict[str, str], tmp_path: Path) -> None:
    root = case["sslrootcert"]
    given = root if root is None else str(authority_files(tmp_path).get(root, root))
    changes = {"DATABASE_SSLMODE": case["sslmode"], "DATABASE_SSLROOTCERT": given}
    if case["wrong"] is None:
        settings = Everything.from_environment(environment(**changes))
        assert settings.database_sslmode == (case["sslmode"] or "verify-full")
        assert settings.database_sslrootcert == (given and Path(given))
        return
    (line,) = errors_of(**changes)
    assert line.startswith(f"CONTROLPLANE_DATABASE_{case['wrong'].upper()}: expected ")
    if case["wrong"] == "sslrootcert":
        assert "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem" in line


def test_a_process_without_tenant_databases_needs_no_authorities() -> None:
    WebSettings.from_environment(environment(DATABASE_SSLROOTCERT=None))


# ------------------------------------------------------------------------------ groups


def names(of: type[Settings]) -> set[str]:
    return {field.name for field in fields(of)}


def test_a_process_reads_only_what_it_asks_for() -> None:
    broken = environment(CLOUDFLARE_API_TOKEN="x", VPC_ID=None)
    settings = WebSettings.from_environment(broken)
    assert settings.platform_zone == "tenants.example.com"
    assert not {"cloudflare_api_token", "vpc_id", "stripe_api_key", "cache_url"} & set(vars(settings))


def test_celery_needs_no_more_than_its_broker() -> None:
    one = {PREFIX + "BROKER_URL": ENVIRONMENT["BROKER_URL"]}
    assert BrokerSettings.from_environment(one).broker_url == ENVIRONMENT["BROKER_URL"]


def test_the_web_process_has_no_cloud_credential_and_the_worker_no_callers() -> None:
    assert not {"stripe_api_key", "cloudflare_api_token", "cache_url"} & names(WebSettings)
    assert not names(TerraformSettings) & names(WebSettings)
    assert not (names(ApiSettings) | {"stripe_webhook_secrets"}) & names(WorkerSettings)


def test_the_environment_is_the_process_own_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLPLANE_API_URL", "https://api.example/")
    monkeypatch.setenv("CONTROLPLANE_API_TOKEN", TOKEN)
    settings = ClientSettings.from_environment()
    assert (settings.api_url, settings.api_token) == ("https://api.example", TOKEN)


def test_a_child_gets_all_or_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert for_child("HOME", "LD_LIBRARY_PATH") == {"HOME": "/nowhere"}
    assert for_child() == dict(os.environ)


def test_settings_can_not_be_changed() -> None:
    settings = Everything.from_environment(environment())
    with pytest.raises(AttributeError):
        settings.environment = "other"  # type: ignore[misc]


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ENVIRONMENT", "Prod", "a name of a-z, 0-9 and hyphens, a letter first, got 'Prod'"),
        ("LEASE_SECONDS", "soon", "seconds, 10 to 600, got 'soon'"),
        ("LEASE_SECONDS", "9", "seconds, 10 to 600, got '9'"),
        ("LEASE_SECONDS", "nan", "seconds, 10 to 600, got 'nan'"),
        ("HEARTBEAT_SECONDS", "0", "seconds, 1 to 60, got '0'"),
        ("HEARTBEAT_SECONDS", "11", "at most a third of the lease (10)"),
        ("DUTY_INTERVAL", "61", "seconds, 1 to 60, got '61'"),
        ("STRIPE_ACCOUNT", "org_1", "a Stripe account's id (acct_…), got 'org_1'"),
        ("STRIPE_LIVEMODE", "yes", "true or false, got 'yes'"),
        ("STRIPE_LIVEMODE", "true", "false, as the API key is of that mode"),
        (
            "STRIPE_API_BASE",
            "http://api.stripe.example",
            "https://host[:port][/path], or http:// on loopback",
        ),
        ("STRIPE_API_BASE", "https://u:p@api.stripe.example", "https://host"),
        ("STRIPE_API_BASE", "https://api.stripe.example?x=1", "https://host"),
        ("STRIPE_API_BASE", "https://api.stripe.example:port", "https://host"),
        ("STRIPE_API_BASE", "ftp://127.0.0.1", "https://host"),
        ("STRIPE_API_BASE", "http://", "https://host"),
        ("CLOUDFLARE_ZONE_ID", "0123", "32 hexadecimal digits, got '0123'"),
        ("PLATFORM_ZONE", "localhost", "a full domain with a dot in it, got 'localhost'"),
        ("PLATFORM_ZONE", "https://x.example", "a host name alone"),
        ("TERRAFORM_WORK_DIR", "work", "an absolute path, got 'work'"),
        ("TERRAFORM_STATE_BUCKET", "State", "the name of an S3 bucket, got 'State'"),
        ("VPC_ID", "vpc-", "a VPC (vpc-…), got 'vpc-'"),
        ("SUBNET_IDS", "subnet-0123abcd", "2 to 16 different subnets (subnet-…) between commas"),
        ("SUBNET_IDS", "subnet-0123abcd,subnet-0123abcd", "2 to 16 different subnets"),
        ("SUBNET_IDS", "subnet-0123abcd,sub", "subnets (subnet-…), got"),
        ("APP_SECURITY_GROUP_IDS", "sg-0123abcd,", "security groups (sg-…), got"),
        ("PERMISSIONS_BOUNDARY_ARN", "arn:aws:iam::1:policy/x", "the ARN of an IAM policy, got"),
        ("CLUSTER_PARAMETER_GROUP", "Acme--Group", "an RDS cluster parameter group's name, got"),
        ("SUBNET_GROUP", "Databases", "an RDS subnet group's name, in lower case, got"),
        ("APP_ROLE_ARN", "arn:aws:iam::123456789012:user/x", "the ARN of an IAM role, got"),
        ("PLAN_CATALOGUE", "/nowhere/plans.toml", "a file that exists, got '/nowhere/plans.toml'"),
        ("TENANT_MIGRATIONS", "/nowhere", "a folder that exists, got '/nowhere'"),
        ("WAITING_PER_ADDRESS", "-1", "a whole number, 0 to 100000, got '-1'"),
        ("WAITING_PER_ADDRESS", "1.5", "a whole number, 0 to 100000, got '1.5'"),
        ("WAITING_PER_ADDRESS", "100001", "a whole number, 0 to 100000, got '100001'"),
        ("REGISTRY_URL", None, "to be set"),
        ("SUBNET_IDS", None, "to be set"),
    ],
)
def test_a_mistake_is_one_line_with_variable_and_expectation(
    name: str, value: str | None, expected: str
) -> None:
    (error,) = errors_of(**{name: value})
    assert error.startswith(f"CONTROLPLANE_{name}: expected {expected}")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("REGISTRY_URL", f"mysql://u:{SECRET}@h/db", "postgresql://[user[:password]@]host[:port]/database"),
        ("REGISTRY_URL", f"postgresql://u:{SECRET}@h", "postgresql://"),
        ("REGISTRY_URL", f"postgresql:///{SECRET}", "postgresql://"),
        ("REGISTRY_URL", f"postgresql://u:{SECRET}%@h/db", "postgresql://"),  # pragma: allowlist secret
        ("REGISTRY_URL", f"postgresql://h/db?{SECRET}=1", "postgresql://"),
        ("BROKER_URL", f"http://:{SECRET}@h", "redis://[[user]:password@]host[:port][/number], or rediss://"),
        ("BROKER_URL", f"redis://h:{SECRET}", "redis://"),
        ("BROKER_URL", f"redis://:{SECRET}@h/db", "redis://"),
        ("BROKER_URL", f"redis://:{SECRET}@", "redis://"),
        ("BROKER_URL", f"redis://:{SECRET} @h", "redis://"),
        ("CACHE_URL", f"redis://:{SECRET}@broker.example/1", "another server than the broker's"),
        ("STRIPE_API_KEY", f"pk_test_{SECRET}", "a secret or restricted key (sk_… or rk_…)"),
        ("STRIPE_WEBHOOK_SECRETS", SECRET, "signing secrets (whsec_…)"),
        ("STRIPE_WEBHOOK_SECRETS", f"whsec_{SECRET},", "signing secrets (whsec_…)"),
        ("STRIPE_WEBHOOK_SECRETS", f"whsec_1,whsec_2,whsec_{SECRET}", "1 to 2 different signing secrets"),
        ("STRIPE_WEBHOOK_SECRETS", f"whsec_{SECRET},whsec_{SECRET}", "1 to 2 different signing secrets"),
        ("CLOUDFLARE_API_TOKEN", SECRET, "an API token of 20 characters or more"),
        ("CERTIFICATE_KEY", f"c1:{'A' * 64}", "<id>:<base64 of 32 bytes>"),
        ("NOTIFICATION_SECRETS", f"whsec_{SECRET}", "whsec_<base64 of 24 to 64 bytes>"),
        ("NOTIFICATION_URL", "http://hooks.example", "https://host[:port][/path], or http:// on loopback"),
        ("CONFIG_SIGNING_KEYS", SECRET, "<id>:<base64 of 32 bytes or more>"),
        ("CONFIG_SIGNING_KEYS", f"k.1:{SECRET}", "<id>:<base64 of 32 bytes or more>"),
        ("CONFIG_SIGNING_KEYS", f"k1:{SECRET}", "<id>:<base64 of 32 bytes or more> for k1"),
        ("CONFIG_SIGNING_KEYS", "k1:AAAA", "<id>:<base64 of 32 bytes or more> for k1"),
        ("CONFIG_SIGNING_KEYS", f"k1:{'A' * 44},k1:{'B' * 44}", "each key id once"),
        ("API_TOKENS", TOKEN, "<name>:<role>:<token>"),
        ("API_TOKENS", f"operator:{TOKEN}", "<name>:<role>:<token>"),
        ("API_TOKENS", f"Support:operator:{TOKEN}", "<name>:<role>:<token>"),
        ("API_TOKENS", f"support:admin:{TOKEN}", "a role of operator, viewer, dataplane for support"),
        ("API_TOKENS", f"support:operator:{SECRET}", "a token of 22 to 256 printable characters for support"),
        ("API_TOKENS", f"a:viewer:{TOKEN},a:operator:{TOKEN}x", "each name once"),
        ("API_TOKENS", f"a:viewer:{TOKEN},b:operator:{TOKEN}", "each token once"),
    ],
)
def test_a_mistake_in_a_secret_does_not_show_it(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Everything.from_environment(environment(**{name: value}))
    (error,) = caught.value.errors
    assert error.startswith(f"CONTROLPLANE_{name}: expected {expected}")
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in f"{chain!r} {chain}"
        chain = chain.__cause__ or chain.__context__


def test_every_mistake_is_found_at_once() -> None:
    errors = errors_of(VPC_ID="x", PLATFORM_ZONE=None, LEASE_SECONDS="1")
    assert [error.split(":")[0] for error in errors] == [
        "CONTROLPLANE_LEASE_SECONDS",
        "CONTROLPLANE_PLATFORM_ZONE",
        "CONTROLPLANE_VPC_ID",
    ]


def test_the_error_is_a_refusal_with_a_line_for_each_mistake() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Two(BrokerSettings, RegistrySettings):
        """Servers."""

    with pytest.raises(Refused) as caught:
        Two.from_environment({})
    assert str(caught.value).splitlines() == [
        "CONTROLPLANE_REGISTRY_URL: expected to be set",
        "CONTROLPLANE_BROKER_URL: expected to be set",
    ]


def test_a_misspelt_variable_is_pointed_at() -> None:
    (error,) = errors_of(REGISTRY_URL=None, REGISTRY_ULR="x")
    assert error.endswith("expected to be set; is CONTROLPLANE_REGISTRY_ULR a misspelling of it?")


def test_what_the_command_line_reads_is_no_misspelling() -> None:
    (error,) = errors_of(API_TOKENS=None, API_TOKEN="of a client", API_URL="https://api.example")
    assert error.endswith(": expected to be set")


# ------------------------------------------------------------------------------ secrets


def test_no_repr_shows_a_secret() -> None:
    settings = Everything.from_environment(environment())
    shown = f"{settings!r} {settings.api_tokens!r}"
    assert SECRET not in shown
    assert "canary4f1c" not in shown
    assert base64.b64encode(KEY).decode() not in shown
    assert "vpc_id='vpc-0123abcd'" in shown


def test_every_field_that_a_canary_stands_in_is_kept_from_repr() -> None:
    secret = {name for name, value in ENVIRONMENT.items() if SECRET in value or "canary" in value}
    hidden = {name.upper() for name, field in Everything.__dataclass_fields__.items() if not field.repr}
    assert secret | {"CONFIG_SIGNING_KEYS", "CERTIFICATE_KEY", "NOTIFICATION_SECRETS"} == hidden


def test_roles_are_those_of_the_api() -> None:
    assert set(API_ROLES) == set(Role)


# ------------------------------------------------------------------------------ for any input

NAMES = [name for name, field in Everything.__dataclass_fields__.items() if not field.metadata["variable"]]


@given(st.dictionaries(st.sampled_from(NAMES), st.text()))
def test_any_environment_is_read_or_refused(changes: dict[str, Any]) -> None:
    env = environment(**{name.upper(): value for name, value in changes.items()})
    try:
        settings = Everything.from_environment(env)
    except SettingsError as error:
        lines = error.errors
    else:
        assert settings.registry_url.startswith("postgres")
        return
    assert all(line.startswith(PREFIX) and ": expected " in line for line in lines)

"""Is everything outside there, and does it let us in?

Each look does the cheapest thing that needs what a worker needs: the same credentials, the same
permission, the same endpoint. All run side by side and each ends within LIMIT seconds, because a
doctor who waits for the dead is of no use; a look that hangs is left behind in its thread. Nothing is
changed anywhere, and no line holds a secret: what isn't an error of ours is told by its type alone.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import redis
from psycopg.rows import dict_row
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.errors import ControlPlaneError, Refused
from controlplane.settings import Settings
from controlplane.store import schema_version
from controlplane.store.registry import one
from workers.providers import aws
from workers.providers.aws_secrets import AwsSecrets
from workers.providers.cloudflare_hostnames import CloudflareHostnames
from workers.providers.databases.migrations import load
from workers.providers.stripe_billing import StripeBilling

LIMIT = 5.0  # seconds for each look
PATIENCE = 4.0  # seconds for one call inside it, so that its own error is heard
CLOCK_APART = 5.0  # seconds: leases run out by the registry's clock, signatures by ours
TERRAFORM = (1, 11)  # state locks in S3 without DynamoDB, write-only arguments

Look = Callable[[Settings], str]


@dataclass(frozen=True, slots=True)
class Check:
    """`detail`: what was found, or what is wrong, on one line."""

    name: str
    ok: bool
    detail: str
    seconds: float


def checks(settings: Settings) -> Iterator[Check]:
    """One for each outside system, in a fixed order. `settings` hold the groups of a worker."""
    deadline = time.monotonic() + LIMIT
    running = [(name, _start(name, look, settings)) for name, look in LOOKS.items()]
    for name, answer in running:
        try:
            yield answer.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            yield Check(name, False, f"no answer within {LIMIT:g} s", LIMIT)


def _start(name: str, look: Look, settings: Settings) -> queue.SimpleQueue[Check]:
    answer: queue.SimpleQueue[Check] = queue.SimpleQueue()

    def run() -> None:
        started = time.monotonic()
        try:
            ok, detail = True, look(settings)
        except ControlPlaneError as error:
            ok, detail = False, str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
            ok, detail = False, type(error).__name__
        answer.put(Check(name, ok, " ".join(detail.split()), round(time.monotonic() - started, 3)))

    threading.Thread(target=run, name=f"doctor-{name}", daemon=True).start()
    return answer


def _registry(settings: Settings) -> str:
    try:
        with psycopg.connect(
            settings.registry_url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=int(PATIENCE),
            options=f"-c statement_timeout={int(PATIENCE * 1000)}",
        ) as conn:
            before = datetime.now(UTC)
            now = one(conn.execute("SELECT clock_timestamp() AS now").fetchone())["now"]
            apart = abs((now - before).total_seconds())
            current = schema_version.is_current(conn)
    except psycopg.Error as error:
        # libpq names host and user, never the password; what follows the first line is advice.
        raise Refused(str(error).splitlines()[0]) from error
    if not current:
        raise Refused("the schema is older than this release: run `controlplane db upgrade`")
    if apart > CLOCK_APART:
        raise Refused(f"its clock is {apart:.1f} s from this machine's, expected at most {CLOCK_APART:g} s")
    return f"schema current, clock {apart:.2f} s apart"


def _broker(settings: Settings) -> str:
    version, policy = _ask_redis(settings.broker_url)
    if policy != "noeviction":
        raise Refused(f"maxmemory-policy is {policy}, expected noeviction: rings would get lost unseen")
    return f"version {version}, {policy}"


def _cache(settings: Settings) -> str:
    version, policy = _ask_redis(settings.cache_url)
    return f"version {version}, {policy}"


def _ask_redis(url: str) -> tuple[str, str]:
    """Version and eviction policy (INFO shows it where managed services forbid CONFIG)."""
    try:
        with redis.Redis.from_url(
            url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=Retry(NoBackoff(), 0)
        ) as client:
            server, memory = client.info("server"), client.info("memory")
    except redis.RedisError as error:
        raise Refused(str(error)) from error
    version = server.get("valkey_version") or server.get("redis_version", "unknown")
    return str(version), str(memory.get("maxmemory_policy", "unknown"))


def _stripe(settings: Settings) -> str:
    billing = StripeBilling(settings.stripe_api_key, settings.stripe_api_base or "", timeout=PATIENCE)
    for _ in billing.events_since(datetime.now(UTC), ["customer.subscription.updated"]):
        break
    return f"events can be read, {'live' if settings.stripe_livemode else 'test'} mode"


def _cloudflare(settings: Settings) -> str:
    hostnames = CloudflareHostnames(
        settings.cloudflare_api_token,
        settings.cloudflare_zone_id,
        settings.cloudflare_api_base or "",
        timeout=PATIENCE,
    )
    return f"the zone takes {hostnames.quota_left()} more custom hostnames"


def _aws_identity(settings: Settings) -> str:
    with aws.errors("asking AWS who we are"):
        client = aws.client("sts", region=settings.aws_region, timeout=PATIENCE, attempts=1)
        return str(client.get_caller_identity()["Arn"])


def _state_bucket(settings: Settings) -> str:
    bucket = settings.terraform_state_bucket
    with aws.errors(f"looking at bucket {bucket}"):
        client = aws.client("s3", region=settings.aws_region, timeout=PATIENCE, attempts=1)
        client.head_bucket(Bucket=bucket)
    return f"{bucket} is there"


def _secrets(settings: Settings) -> str:
    AwsSecrets(region=settings.aws_region).describe("controlplane/doctor")
    return "secrets can be looked up"


def _terraform(settings: Settings) -> str:
    binary = settings.terraform_binary
    try:
        done = subprocess.run(
            [binary, "version", "-json"],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CHECKPOINT_DISABLE": "1"},
        )
        version = str(json.loads(done.stdout)["terraform_version"])
        major, minor, *_ = version.split(".")
        number = (int(major), int(minor))
    except OSError as error:
        raise Refused(f"{binary}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Refused(f"{binary}: no answer within {PATIENCE:g} s") from error
    except (subprocess.CalledProcessError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{binary}: does not answer `version -json` like Terraform") from error
    if not TERRAFORM <= number < (2, 0):
        raise Refused(f"{binary} is {version}, expected 1.11 or newer, below 2.0")
    return f"{version} ({binary})"


def _catalogue(settings: Settings) -> str:
    path = settings.plan_catalogue
    found = parse_catalogue(path.read_text(encoding="utf-8"), source=str(path))
    return f"{len(found.plans)} plans: {', '.join(found.plans)}"


def _migrations(settings: Settings) -> str:
    found = load(settings.tenant_migrations)
    return f"{len(found)} migrations, the newest is {found[-1].name}"


LOOKS: dict[str, Look] = {
    "registry": _registry,
    "broker": _broker,
    "cache": _cache,
    "Stripe": _stripe,
    "Cloudflare": _cloudflare,
    "AWS identity": _aws_identity,
    "Terraform state": _state_bucket,
    "Secrets Manager": _secrets,
    "Terraform": _terraform,
    "plan catalogue": _catalogue,
    "tenant migrations": _migrations,
}

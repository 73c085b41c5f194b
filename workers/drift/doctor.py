"""Is everything outside there, and does it let us in? Is all here that a worker needs?

Each check does the cheapest thing that needs what a worker needs: the same credentials, the same
permission, the same endpoint. All run side by side and each ends within LIMIT seconds, because a
doctor who waits for the dead is of no use; a check that hangs is left behind in its thread. Nothing is
changed anywhere, and no line holds a secret: what isn't an error of ours is reported by its type alone.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
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

from controlplane.domain.billing import DISPUTES, EVENT_TYPES
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.errors import ControlPlaneError, Refused
from controlplane.migration_project import is_project
from controlplane.settings import WorkerSettings, for_child
from controlplane.store import schema_version
from controlplane.store.registry import oldest_snapshot, one
from controlplane.workers.providers import aws
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.cloudflare_hostnames import CloudflareHostnames
from controlplane.workers.providers.databases.migrations import load
from controlplane.workers.providers.real import STACKS
from controlplane.workers.providers.stripe_billing import StripeBilling
from controlplane.workers.runtime.wiring import stack_release

LIMIT = 5.0  # seconds for each check
PATIENCE = 4.0  # seconds for one call inside it, so that its own error is heard
SNAPSHOT_AT_MOST = 60.0  # seconds
CLOCK_APART = 5.0  # seconds: leases run out by the registry's clock, signatures by ours
TERRAFORM = (1, 11)  # state locks in S3 without DynamoDB, write-only arguments

LENDS_A_NAME = frozenset({"Customers", "Checkout Sessions"})

Probe = Callable[[WorkerSettings], str]


@dataclass(frozen=True, slots=True)
class Check:
    """`detail`: what was found, or what is wrong, on one line."""

    name: str
    ok: bool
    detail: str
    seconds: float


def checks(settings: WorkerSettings, *, local: bool = False) -> Iterator[Check]:
    """One for each check, in a fixed order; `local`: of those alone that leave this machine alone."""
    deadline = time.monotonic() + LIMIT
    probes = HERE if local else CHECKS
    running = [(name, _start(name, probe, settings)) for name, probe in probes.items()]
    for name, answer in running:
        try:
            yield answer.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            yield Check(name, False, f"no answer within {LIMIT:g} s", LIMIT)


def check_stacks() -> Check:
    """The one check that needs no settings."""
    return _checked("Terraform stacks", _stacks)


def _start(name: str, probe: Probe, settings: WorkerSettings) -> queue.SimpleQueue[Check]:
    answer: queue.SimpleQueue[Check] = queue.SimpleQueue()
    threading.Thread(
        target=lambda: answer.put(_checked(name, lambda: probe(settings))), name=f"doctor-{name}", daemon=True
    ).start()
    return answer


def _checked(name: str, probe: Callable[[], str]) -> Check:
    started = time.monotonic()
    try:
        ok, detail = True, probe()
    except ControlPlaneError as error:
        ok, detail = False, str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        ok, detail = False, type(error).__name__
    return Check(name, ok, " ".join(detail.split()), round(time.monotonic() - started, 3))


def _registry(settings: WorkerSettings) -> str:
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
            oldest = oldest_snapshot(conn)
    except psycopg.Error as error:
        # libpq names host and user, never the password; what follows the first line is advice.
        raise Refused(str(error).splitlines()[0]) from error
    if not current:
        raise Refused("the schema is older than this release: run `controlplane db upgrade`")
    if apart > CLOCK_APART:
        raise Refused(f"its clock is {apart:.1f} s from this machine's, expected at most {CLOCK_APART:g} s")
    if oldest is not None and oldest.seconds > SNAPSHOT_AT_MOST:
        raise Refused(
            f"{oldest.who} has kept a snapshot for {oldest.seconds:.0f} s, expected at most"
            f" {SNAPSHOT_AT_MOST:g} s: as long as it stands, what has ended is not cleared away and claims"
            " grow slower; end it, and dump from a replica"
        )
    return f"schema current, clock {apart:.2f} s apart"


def _broker(settings: WorkerSettings) -> str:
    version, policy = _ask_redis(settings.broker_url)
    if policy != "noeviction":
        raise Refused(f"maxmemory-policy is {policy}, expected noeviction: wake-ups would get lost unseen")
    return f"version {version}, {policy}"


def _cache(settings: WorkerSettings) -> str:
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


def _stripe(settings: WorkerSettings) -> str:
    """Each permission, tried. That a name can't be read holds nobody up, so it is told of and no more."""
    billing = StripeBilling(settings.stripe_api_key, settings.stripe_api_base or "", timeout=PATIENCE)
    refused = billing.refused()
    if needed := [name for name in refused if name not in LENDS_A_NAME]:
        raise Refused(f"the key may not read {', '.join(needed)}: give it that permission")
    beside = f"; not {', '.join(refused)}, which lend names alone" if refused else ""
    mode = "live" if settings.stripe_livemode else "test"
    return (
        f"contracts can be read{beside}, {mode} mode; events to enable: {', '.join(sorted(EVENT_TYPES))}"
        f" (as snapshots, not thin: {', '.join(sorted(DISPUTES))})"
    )


def _cloudflare(settings: WorkerSettings) -> str:
    hostnames = CloudflareHostnames(
        settings.cloudflare_api_token,
        settings.cloudflare_zone_id,
        settings.cloudflare_api_base or "",
        timeout=PATIENCE,
    )
    return f"the zone takes {hostnames.quota_left()} more custom hostnames"


def _aws_identity(settings: WorkerSettings) -> str:
    with aws.errors("asking AWS who we are"):
        client = aws.client("sts", region=settings.aws_region, timeout=PATIENCE, attempts=1)
        return str(client.get_caller_identity()["Arn"])


def _state_bucket(settings: WorkerSettings) -> str:
    bucket = settings.terraform_state_bucket
    with aws.errors(f"looking at bucket {bucket}"):
        client = aws.client("s3", region=settings.aws_region, timeout=PATIENCE, attempts=1)
        client.head_bucket(Bucket=bucket)
    return f"{bucket} is there"


def _secrets(settings: WorkerSettings) -> str:
    AwsSecrets(region=settings.aws_region).describe("controlplane/doctor")
    return "secrets can be looked up"


def _stacks(_: object = None) -> str:
    return f"release {stack_release()[:12]} ({STACKS})"


def _terraform(settings: WorkerSettings) -> str:
    binary = settings.terraform_binary
    output = _output_of(binary, "version", "-json")
    try:
        version = str(json.loads(output)["terraform_version"])
        major, minor, *_ = version.split(".")
        number = (int(major), int(minor))
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{binary}: does not answer `version -json` like Terraform") from error
    if not TERRAFORM <= number < (2, 0):
        raise Refused(f"{binary} is {version}, expected 1.11 or newer, below 2.0")
    return f"{version} ({binary})"


def _work_dir(settings: WorkerSettings) -> str:
    """The folder itself is made by the first run."""
    folder = settings.terraform_work_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise Refused(f"{there}: expected a folder that this user may write to, for {folder}")
    return str(folder)


def _pg_dump(settings: WorkerSettings) -> str:
    program = settings.pg_dump
    if settings.copy_bucket is None and shutil.which(program) is None:
        return (
            f"{program} is not here; exports need it, and CONTROLPLANE_COPY_BUCKET, which is not set either"
        )
    return _output_of(program, "--version")


def _tls(settings: WorkerSettings) -> str:
    roots = settings.database_sslrootcert or "libpq's own root certificates"
    return f"tenants' databases with sslmode={settings.database_sslmode}, {roots}"


def _output_of(*command: str) -> str:
    program, *arguments = command
    try:
        return subprocess.run(
            command,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**for_child(), "CHECKPOINT_DISABLE": "1"},
            text=True,
        ).stdout
    except OSError as error:
        raise Refused(f"{program}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Refused(f"{program}: no answer within {PATIENCE:g} s") from error
    except subprocess.CalledProcessError as error:
        raise Refused(f"{program}: does not answer `{' '.join(arguments)}`") from error


def _catalogue(settings: WorkerSettings) -> str:
    path = settings.plan_catalogue
    found = parse_catalogue(path.read_text(encoding="utf-8"), source=str(path))
    return f"{len(found.plans)} plans: {', '.join(found.plans)}"


def _migrations(settings: WorkerSettings) -> str:
    if is_project(settings.tenant_migrations):
        return f"a migration tool's project ({settings.tenant_migrations})"
    found = load(settings.tenant_migrations)
    return f"{len(found)} migrations, the newest is {found[-1].name}"


HERE: dict[str, Probe] = {
    "Terraform stacks": _stacks,
    "Terraform": _terraform,
    "work folder": _work_dir,
    "pg_dump": _pg_dump,
    "TLS": _tls,
    "plan catalogue": _catalogue,
    "tenant migrations": _migrations,
}
"""What needs nothing but this machine: `worker --check`."""

CHECKS: dict[str, Probe] = {
    "registry": _registry,
    "broker": _broker,
    "cache": _cache,
    "Stripe": _stripe,
    "Cloudflare": _cloudflare,
    "AWS identity": _aws_identity,
    "Terraform state": _state_bucket,
    "Secrets Manager": _secrets,
    **HERE,
}

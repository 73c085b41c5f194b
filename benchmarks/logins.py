"""How many tenants' logins a process of the data plane can fetch, each as a session of its own.

    python -m benchmarks.logins [--quick] [--write]

Against one emulated account, which is held to IAM: AssumeRole with the placement's tag, GetSecretValue as
that session, for a placement that the process has not seen. Held against what it did before: a session and a
client of boto3 made for each login, under a lock. The emulator is one process that needs a core for itself,
so what the machine does besides shows in the figures by the clock and not in those by the CPU. Ends with 1
where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3

from benchmarks import page
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.localcloud.servers.process import make_data_root
from dataplane.credentials import SecretsManagerCredentials
from dataplane.tenant_config import DatabaseAddress, TenantConfig
from tests.dataplane.tenants import new_tenant_id
from tests.dataplane.tiers import config
from tests.harness.access import as_app, cluster_role, tenant_secret

THREADS = 8
PLACEMENTS = 500
SECONDS = 10.0
GOAL = 200.0
RATIO = 10.0
CLUSTER = "c-benchmarkmmm"


@dataclass(frozen=True, slots=True)
class Rate:
    """Logins a second, by the clock and by the CPU time of this process."""

    clock: float
    cpu: float


def prepare(placements: int) -> list[TenantConfig]:
    role, made = cluster_role(CLUSTER), []
    for _ in range(placements):
        tenant_id = new_tenant_id()
        arn = tenant_secret(tenant_id, CLUSTER, json.dumps({"username": tenant_id, "password": "p"}))
        database = DatabaseAddress("db.example", 5432, "t_1", arn, role)
        placed = f"{tenant_id}-1"
        made.append(config(f"{tenant_id}.example", tenant_id=tenant_id, placement=placed, database=database))
    return made


def a_client_for_each(session: Callable[..., Any]) -> Callable[[TenantConfig], None]:
    """As before: making a client is not thread-safe, so it is made under a lock."""
    lock, sts = threading.Lock(), session().client("sts")

    def fetch(of: TenantConfig) -> None:
        assert of.database is not None
        assert of.placement is not None
        keys = sts.assume_role(
            RoleArn=of.database.role,
            RoleSessionName=of.placement,
            Tags=[{"Key": "placement", "Value": of.placement}],
        )["Credentials"]
        with lock:
            client = boto3.session.Session().client(
                "secretsmanager",
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=keys["SecretAccessKey"],
                aws_session_token=keys["SessionToken"],
            )
        assert client.get_secret_value(SecretId=of.database.secret)["SecretString"]

    return fetch


def ours(session: Callable[..., Any]) -> Callable[[TenantConfig], None]:
    credentials = SecretsManagerCredentials(session=session)
    credentials._clients()

    def fetch(of: TenantConfig) -> None:
        if credentials.get(of).username != of.tenant_id:
            raise SystemExit(f"{of.tenant_id} got another's login")

    return fetch


def measure(fetch: Callable[[TenantConfig], None], placements: list[TenantConfig], seconds: float) -> Rate:
    """Each placement once, for at most this long."""
    rest, lock = iter(placements), threading.Lock()
    until = time.monotonic() + seconds

    def work(_: int) -> int:
        done = 0
        while time.monotonic() < until:
            with lock:
                of = next(rest, None)
            if of is None:
                break
            fetch(of)
            done += 1
        return done

    cpu, began = time.process_time(), time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:
        done = sum(threads.map(work, range(THREADS)))
    return Rate(done / (time.monotonic() - began), done / (time.process_time() - cpu))


def report(before: Rate, now: Rate) -> tuple[str, bool]:
    """The section, and whether every goal was met."""
    ratio = now.cpu / before.cpu
    goals = [
        ("logins a second of CPU", f"{now.cpu:,.0f}", f"≥ {GOAL:g}", now.cpu >= GOAL),
        ("now ÷ before, by the CPU", f"{ratio:.1f} ×", f"≥ {RATIO:g} ×", ratio >= RATIO),
    ]
    lines = [
        "## Logins of one process",
        "",
        f"A login that the process has not seen: AssumeRole with the placement's tag, then GetSecretValue;"
        f" {THREADS} threads, an emulated account that is held to IAM.",
        "",
        "| way | by the clock | by the process's CPU |",
        "| --- | ---: | ---: |",
        f"| before: a session and a client of boto3 for each | {before.clock:,.1f}/s | {before.cpu:,.1f}/s |",
        f"| one client, the session's keys put in by the thread | {now.clock:,.0f}/s | {now.cpu:,.0f}/s |",
        "",
        "| goal | measured | wanted | met |",
        "| --- | --- | --- | --- |",
        *(f"| {what} | {got} | {wanted} | {'yes' if met else 'no'} |" for what, got, wanted, met in goals),
    ]
    return "\n".join(lines), all(met for *_, met in goals)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer placements: some seconds")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    options = parser.parse_args(arguments)
    load, placements = page.load(), 100 if options.quick else PLACEMENTS
    root = make_data_root("bench-logins-")
    try:
        with AwsEmulator(root / "aws") as aws:
            os.environ.update(aws.environ())
            tenants, session = prepare(placements), as_app()
            before = measure(a_client_for_each(session), tenants, SECONDS / (4 if options.quick else 1))
            now = measure(ours(session), tenants, SECONDS)
    finally:
        shutil.rmtree(root)
    table, met = report(before, now)
    text = f"{table}\n\n{page.stamp(load)}"
    sys.stdout.write(text + "\n")
    if options.write:
        page.write("logins", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""AWS that answers badly or to nobody, a disk that is full, a provider that is killed: the real Terraform.

A fault proxy stands between Terraform and the emulated account. Placements' secrets, which take seconds, but
for the role, which is a cluster's: what a cluster's minutes add is in tests/terraform/test_faults.py.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from controlplane.domain.errors import ControlPlaneError, Retryable
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.workers.providers.ports import PriorRun, StackRun
from controlplane.workers.providers.terraform import TerraformRunner, lock_owner
from tests.harness.faults.http import (
    Asked,
    HttpFault,
    HttpProxy,
)
from tests.harness.terraform import (
    Events,
    RealFixture,
    again,
    cluster_run,
    never,
    placements_run,
    secrets_of,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.soak, pytest.mark.timeout(900)]

WITHIN = 400.0
ERROR = "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>"


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terraform")


@pytest.fixture
def fixture(aws: AwsEmulator, work_dir: Path) -> RealFixture:
    return RealFixture(work_dir)


@pytest.fixture
def proxy(aws: AwsEmulator) -> Iterator[HttpProxy]:
    with HttpProxy(aws.port, seed=1) as opened:
        yield opened


@pytest.fixture
def terraform(fixture: RealFixture, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> TerraformRunner:
    """Speaks to AWS through the proxy; boto3 of the test does not."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return fixture.runner()


def makes_secret(asked: Asked) -> bool:
    return asked.mentions("secretsmanager.CreateSecret")


def puts_policy(asked: Asked) -> bool:
    return asked.mentions("Action=PutRolePolicy")


def converge(terraform: TerraformRunner, run: StackRun) -> Events:
    """As the engine does: again for as long as the error says so, every run recorded beforehand."""
    end, events, prior = time.monotonic() + WITHIN, Events(), []
    while True:
        started = datetime.now(UTC)
        try:
            terraform.apply(
                replace(run, prior_runs=tuple(prior)),
                on_event=events,
                stopped=never,
            )
        except Retryable:
            assert time.monotonic() < end
            prior.append(PriorRun(lock_owner(), started, None))
            time.sleep(1)
        else:
            return events


def made_once(run: StackRun) -> bool:
    pages = boto3.client("secretsmanager").get_paginator("list_secrets").paginate()
    names = [secret["Name"] for page in pages for secret in page["SecretList"]]
    wanted = secrets_of(run)
    return sorted(name for name in names if name in wanted) == sorted(wanted)


@pytest.mark.fault(44)
def test_aws_that_answers_500_and_throttles(
    fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner
) -> None:
    run = placements_run(fixture, 2)

    broken = b'{"__type": "InternalServiceError", "message": "An error occurred on the server side"}'
    slow = b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'
    page = b"<html><body>502 Bad Gateway</body></html>"
    proxy.faults = [
        HttpFault(makes_secret, status=500, body=broken, share=0.3, times=20),
        HttpFault(makes_secret, status=400, body=slow, share=0.5, times=20),
        HttpFault(makes_secret, status=400, body=page, times=1),
    ]
    converge(terraform, run)
    assert sum(fault.done for fault in proxy.faults) > 1
    assert made_once(run)
    assert terraform.plan(again(run)) == []


@pytest.mark.fault(45)
def test_made_and_the_answer_lost(fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner) -> None:
    run = placements_run(fixture, 2)
    proxy.faults = [
        HttpFault(makes_secret, lose_answer=True, times=1),
        HttpFault(lambda asked: asked.mentions("secretsmanager.DescribeSecret"), lose_answer=True, times=1),
    ]
    converge(terraform, run)
    assert [fault.done for fault in proxy.faults] == [1, 1]
    assert made_once(run)
    assert terraform.plan(again(run)) == []


@pytest.mark.fault(50)
def test_a_role_that_is_not_shown_yet(
    fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner
) -> None:
    """For its policy the role that was just made is unknown, for a while."""
    run = cluster_run(fixture)
    missing = ERROR.format(code="NoSuchEntity").encode()
    proxy.faults = [HttpFault(puts_policy, status=404, body=missing, times=4)]
    converge(terraform, run)
    assert proxy.faults[0].done > 0
    assert terraform.plan(again(run)) == []


@pytest.mark.fault(51)
def test_the_provider_is_killed_under_terraform(
    fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner
) -> None:
    run = placements_run(fixture, 2)
    proxy.faults = [HttpFault(makes_secret, delay=3.0, times=1)]
    killed = threading.Event()

    def strike() -> None:
        while not proxy.faults[0].done:
            time.sleep(0.05)
        for pid in providers():
            os.kill(pid, signal.SIGKILL)
            killed.set()

    thread = threading.Thread(target=strike)
    thread.start()
    converge(terraform, run)
    thread.join(10)
    assert killed.is_set()
    assert made_once(run)
    assert terraform.plan(again(run)) == []


def providers() -> list[int]:
    """AWS providers that stand below this process."""
    lines = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,comm="], check=True, capture_output=True, text=True, timeout=10
    ).stdout.split("\n")
    above = {int(p): (int(above), name) for p, above, name in (line.split(None, 2) for line in lines if line)}

    def ours(pid: int) -> bool:
        while pid in above and pid != os.getpid():
            pid = above[pid][0]
        return pid == os.getpid()

    return [pid for pid, (_, name) in above.items() if name.startswith("terraform-provi") and ours(pid)]


@pytest.mark.fault(33)
def test_a_disk_that_is_full(fixture: RealFixture, terraform: TerraformRunner) -> None:
    """Terraform may write no file beyond a few bytes: neither its plan nor its own output."""
    run = placements_run(fixture, 2)
    terraform.prepare(run.release)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(ControlPlaneError):
            terraform.apply(run, on_event=Events(), stopped=never)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    converge(terraform, run)
    assert made_once(run)
    assert terraform.plan(again(run)) == []

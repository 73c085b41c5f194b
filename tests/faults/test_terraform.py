"""AWS that answers badly or to nobody, a disk that is full, a provider that is killed: the real Terraform.

A fault proxy stands between Terraform and the emulated account. Tenants' stacks, which take seconds: what a
cluster's minutes add is in tests/terraform/test_faults.py.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
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
    never,
    tenant_run,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.soak, pytest.mark.timeout(900)]

WITHIN = 400.0
ERROR = "<ErrorResponse><Error><Type>{who}</Type><Code>{code}</Code></Error></ErrorResponse>"


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


def iam(action: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.mentions(f"Action={action}")


def answered(code: str, *, who: str = "Receiver") -> bytes:
    return ERROR.format(code=code, who=who).encode()


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


def roles(run: StackRun) -> list[str]:
    return [
        role["RoleName"]
        for page in boto3.client("iam").get_paginator("list_roles").paginate()
        for role in page["Roles"]
        if run.variables["tenant_id"] in role["RoleName"]
    ]


@pytest.mark.fault(44)
def test_aws_that_answers_500_and_throttles(
    fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner
) -> None:
    run = tenant_run(fixture)

    def changes_iam(asked: Asked) -> bool:
        return asked.mentions("Action=Create") or asked.mentions("Action=Put")

    def makes_secret(asked: Asked) -> bool:
        return asked.mentions("secretsmanager.CreateSecret")

    slow = b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'
    page = b"<html><body>502 Bad Gateway</body></html>"
    proxy.faults = [
        HttpFault(changes_iam, status=500, body=answered("InternalFailure"), share=0.3, times=20),
        HttpFault(changes_iam, status=400, body=answered("Throttling", who="Sender"), share=0.5, times=20),
        HttpFault(makes_secret, status=400, body=slow, share=0.5, times=20),
        HttpFault(makes_secret, status=400, body=page, times=1),
    ]
    converge(terraform, run)
    assert sum(fault.done for fault in proxy.faults) > 1
    assert roles(run) == [run.variables["placement_key"]]
    assert terraform.plan(again(run)) == []


@pytest.mark.fault(45)
def test_made_and_the_answer_lost(fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner) -> None:
    run = tenant_run(fixture)
    proxy.faults = [
        HttpFault(iam("CreateRole"), lose_answer=True, times=1),
        HttpFault(lambda asked: asked.mentions("secretsmanager.CreateSecret"), lose_answer=True, times=1),
    ]
    converge(terraform, run)
    assert [fault.done for fault in proxy.faults] == [1, 1]
    assert roles(run) == [run.variables["placement_key"]]
    assert terraform.plan(again(run)) == []


@pytest.mark.fault(50)
def test_a_role_that_is_not_shown_yet(
    fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner
) -> None:
    """For its policy the role that was just made is unknown, for a while."""
    run = tenant_run(fixture)
    missing = answered("NoSuchEntity", who="Sender")
    proxy.faults = [HttpFault(iam("PutRolePolicy"), status=404, body=missing, times=4)]
    converge(terraform, run)
    assert proxy.faults[0].done > 0
    assert roles(run) == [run.variables["placement_key"]]
    assert terraform.plan(again(run)) == []


@pytest.mark.fault(51)
def test_the_provider_is_killed_under_terraform(
    fixture: RealFixture, proxy: HttpProxy, terraform: TerraformRunner
) -> None:
    run = tenant_run(fixture)
    proxy.faults = [HttpFault(iam("CreateRole"), delay=3.0, times=1)]
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
    assert roles(run) == [run.variables["placement_key"]]
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
    run = tenant_run(fixture)
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
    assert roles(run) == [run.variables["placement_key"]]
    assert terraform.plan(again(run)) == []

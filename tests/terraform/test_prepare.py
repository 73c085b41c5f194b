"""A worker initialises its stacks before it takes work, and never stops because it can't."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from controlplane.workers.runtime import wiring

ENVIRONMENT = {
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "CONTROLPLANE_TERRAFORM_STATE_BUCKET": "terraform-states",
    "CONTROLPLANE_VPC_ID": "vpc-00000001",
    "CONTROLPLANE_SUBNET_IDS": "subnet-00000001,subnet-00000002",
    "CONTROLPLANE_APP_SECURITY_GROUP_IDS": "sg-00000001",
    "CONTROLPLANE_PERMISSIONS_BOUNDARY_ARN": "arn:aws:iam::123456789012:policy/boundary",
    "CONTROLPLANE_APP_ROLE_ARN": "arn:aws:iam::123456789012:role/app",
}


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a terraform that only writes down its commands was given; it is the one that is found."""
    log, binary = tmp_path / "reported", tmp_path / "terraform"
    binary.write_text(f'#!/bin/sh\necho "$1" >> {log}\n')
    binary.chmod(0o755)
    settings = ENVIRONMENT | {
        "CONTROLPLANE_TERRAFORM_BINARY": str(binary),
        "CONTROLPLANE_TERRAFORM_WORK_DIR": str(tmp_path / "work"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return log


def test_each_stack_is_initialised_once(reported: Path) -> None:
    wiring.prepare_from_environment()
    wiring.prepare_from_environment()
    assert reported.read_text().split() == ["init"] * len(wiring.STACK_NAMES)


def test_a_terraform_that_fails_stops_no_worker(
    reported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "terraform").write_text("#!/bin/sh\nexit 1\n")
    with caplog.at_level(logging.WARNING):
        wiring.prepare_from_environment()
    assert "terraform could not be prepared" in caplog.text
    assert not reported.exists()


def test_settings_that_are_missing_stop_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_REGION", "CONTROLPLANE_TERRAFORM_STATE_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.WARNING):
        wiring.prepare_from_environment()
    assert "terraform could not be prepared" in caplog.text

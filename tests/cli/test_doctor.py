"""The doctor over the whole local cloud: all well, then one part after the other taken away."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controlplane.localcloud.servers.process import free_port
from controlplane.settings import WorkerSettings
from controlplane.workers.drift import doctor


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "doctor", *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def aws_environment(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


def failed(env: dict[str, str], **changes: str) -> dict[str, str]:
    """Check → detail of those that fail in an environment that is changed like this."""
    settings = WorkerSettings.from_environment(env | changes)
    return {check.name: check.detail for check in doctor.checks(settings) if not check.ok}


def test_a_healthy_platform_is_one_line_a_check(env: dict[str, str]) -> None:
    done = run(env)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(doctor.CHECKS)
    assert all(line.startswith("ok ") for line in lines)
    assert "as snapshots, not thin: charge.dispute.created, radar.early_fraud_warning.created" in done.stdout
    for name in doctor.CHECKS:
        assert sum(name in line[8:27] for line in lines) >= 1
    secrets = [value for name, value in env.items() if "KEY" in name or "TOKEN" in name or "URL" in name]
    # The emulator takes any key of AWS; the one it is given is a part of folders' names.
    secrets = [secret for secret in secrets if secret not in ("", "localcloud")]
    assert not any(secret in done.stdout for secret in secrets)


def test_json_is_one_document_and_a_failure_a_status(env: dict[str, str]) -> None:
    done = run(env | {"CONTROLPLANE_TERRAFORM_BINARY": "/no/such/terraform"}, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    wrong = [check for check in found["checks"] if not check["ok"]]
    assert [check["name"] for check in wrong] == ["Terraform"]
    assert wrong[0]["detail"] == "/no/such/terraform: No such file or directory"
    assert f"1 of {len(doctor.CHECKS)} checks failed: Terraform" in done.stderr


@pytest.mark.usefixtures("aws_environment")
def test_each_part_that_is_away_is_named_and_the_others_stay_well(env: dict[str, str]) -> None:
    nobody = free_port()
    away = {
        "registry": {"CONTROLPLANE_REGISTRY_URL": f"postgresql://{'u:canary'}@127.0.0.1:{nobody}/x"},
        "broker": {"CONTROLPLANE_BROKER_URL": f"redis://:canary@127.0.0.1:{nobody}/0"},
        "cache": {"CONTROLPLANE_CACHE_URL": f"redis://:canary@127.0.0.1:{nobody}/0"},
        "Stripe": {"CONTROLPLANE_STRIPE_API_BASE": f"http://127.0.0.1:{nobody}"},
        "Cloudflare": {"CONTROLPLANE_CLOUDFLARE_API_BASE": f"http://127.0.0.1:{nobody}"},
        "Terraform state": {"CONTROLPLANE_TERRAFORM_STATE_BUCKET": "no-such-bucket"},
    }
    for name, change in away.items():
        found = failed(env, **change)
        assert list(found) == [name]
        assert "canary" not in found[name]
        assert "\n" not in found[name]


@pytest.mark.usefixtures("aws_environment")
def test_wrong_credentials_are_told_apart_from_an_outage(env: dict[str, str]) -> None:
    found = failed(
        env,
        CONTROLPLANE_STRIPE_API_KEY="sk_test_wrong",
        CONTROLPLANE_CLOUDFLARE_API_TOKEN="wrong-token-of-twenty-and-more",
    )
    assert set(found) == {"Stripe", "Cloudflare"}
    assert all("wrong" not in detail for detail in found.values())


@pytest.mark.usefixtures("aws_environment")
def test_a_broker_that_evicts_is_refused(env: dict[str, str]) -> None:
    swapped = {
        "CONTROLPLANE_BROKER_URL": env["CONTROLPLANE_CACHE_URL"],
        "CONTROLPLANE_CACHE_URL": env["CONTROLPLANE_BROKER_URL"],
    }
    assert "expected noeviction" in failed(env, **swapped)["broker"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo \'{"terraform_version": "1.9.8"}\'', "expected 1.11 or newer"),
        ('echo \'{"terraform_version": "2.0.0"}\'', "expected 1.11 or newer"),
        ("echo nonsense", "does not answer"),
        ("echo '[]'", "does not answer"),
        ("exit 1", "does not answer"),
    ],
)
def test_a_terraform_that_will_not_do(tmp_path: Path, env: dict[str, str], script: str, words: str) -> None:
    fake = tmp_path / "terraform"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    changed = env | {"CONTROLPLANE_TERRAFORM_BINARY": str(fake)}
    with pytest.raises(doctor.Refused, match=words):
        doctor.CHECKS["Terraform"](WorkerSettings.from_environment(changed))


def test_an_old_schema_is_a_failure(env: dict[str, str], empty_database_url: str) -> None:
    changed = env | {"CONTROLPLANE_REGISTRY_URL": empty_database_url}
    with pytest.raises(doctor.Refused, match="controlplane db upgrade"):
        doctor.CHECKS["registry"](WorkerSettings.from_environment(changed))


def test_a_look_that_hangs_is_left_behind(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(doctor, "LIMIT", 2.0)
    monkeypatch.setattr(
        doctor,
        "CHECKS",
        {"hangs": lambda _: str(let_go.wait(60)), "faults": lambda _: str(1 / 0), "well": lambda _: "yes"},
    )
    found = {check.name: check for check in doctor.checks(WorkerSettings.from_environment(env))}
    let_go.set()
    assert (found["hangs"].ok, found["hangs"].detail) == (False, "no answer within 2 s")
    assert (found["faults"].ok, found["faults"].detail) == (False, "ZeroDivisionError")
    assert found["well"].ok

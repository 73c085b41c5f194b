"""The runner's edges, with a small script in terraform's place; the whole of it is in the contract."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.workers.providers.ports import StackRun
from controlplane.workers.providers.terraform import TerraformRunner, archive
from controlplane.workers.providers.terraform.commands import Commands
from controlplane.workers.providers.terraform.state import StateBucket
from tests.harness.terraform import (
    ROOT,
    Events,
    FakeFixture,
    never,
    placements_run,
)

PROVIDERS = Path(__file__).parents[2] / "workers"


def runner(work_dir: Path, binary: str, **environment: str) -> TerraformRunner:
    return TerraformRunner(
        binary=binary,
        stacks_dir=ROOT / "stacks",
        work_dir=work_dir,
        state_bucket="states",
        region="eu-central-1",
        environment={"PATH": "/usr/bin:/bin", "HOME": "/nowhere"} | environment,
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> StackRun:
    """Of the installed release, whose archive the bucket gives."""
    carried = archive.pack(ROOT)
    monkeypatch.setattr(StateBucket, "read", lambda _bucket, _key: carried.body)
    return replace(placements_run(FakeFixture()), release=carried.digest)


def script(folder: Path, body: str) -> str:
    path = folder / "terraform"
    path.write_text(f"#!{sys.executable} -IS\nimport json, os, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_terraform_sees_awss_variables_and_no_secret_of_ours(tmp_path: Path) -> None:
    binary = script(tmp_path, "print(json.dumps({'terraform_version': ' '.join(sorted(os.environ))}))")
    secret = {"CONTROLPLANE_STRIPE_API_KEY": "canary", "DATABASE_URL": "canary", "TF_LOG": "TRACE"}
    given = {"AWS_SESSION_TOKEN": "t", "AWS_PROFILE": "", "HTTPS_PROXY": "http://proxy"}
    seen = set(runner(tmp_path / "work", binary, **secret, **given).version().split())
    assert seen >= {"AWS_SESSION_TOKEN", "AWS_REGION", "CHECKPOINT_DISABLE", "HTTPS_PROXY", "PATH"}
    assert not seen & {*secret, "AWS_PROFILE"}


def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeedsHuman, match="'no-such-terraform'") as missing:
        runner(tmp_path, "no-such-terraform").version()
    assert missing.value.runbook == "terraform-configuration"


def test_an_unusable_work_folder_is_an_error_of_ours(tmp_path: Path, run: StackRun) -> None:
    (tmp_path / "work").write_text("a file")
    binary = script(tmp_path, "")
    with pytest.raises(Retryable, match="work folder"):
        runner(tmp_path / "work", binary).apply(run, on_event=Events(), stopped=never)


def test_a_failing_init_says_why_and_is_tried_again_next_time(tmp_path: Path, run: StackRun) -> None:
    body = "sys.stderr.write('│ Error: Failed to query available provider packages\\n'); sys.exit(1)"
    broken = runner(tmp_path / "work", script(tmp_path, body))
    for _ in range(2):
        with pytest.raises(NeedsHuman, match="terraform init: Failed to query"):
            broken.apply(run, on_event=Events(), stopped=never)


# --------------------------------------------------------------------------------- command lines


def test_commands_are_terraforms(tmp_path: Path) -> None:
    commands = Commands("terraform")
    assert commands.make_plan(tmp_path / "p", tmp_path / "v", targets=["a.b", "c.d"], destroy=True) == [
        "terraform",
        "plan",
        "-json",
        "-input=false",
        "-detailed-exitcode",
        "-destroy",
        "-lock-timeout=20s",
        f"-out={tmp_path}/p",
        f"-var-file={tmp_path}/v",
        "-target=a.b",
        "-target=c.d",
    ]
    assert "-destroy" not in commands.make_plan(tmp_path / "p", tmp_path / "v")
    assert commands.initialise({"bucket": "b", "region": "r"})[-2:] == [
        "-backend-config=bucket=b",
        "-backend-config=region=r",
    ]
    assert commands.forget(["a.b", 'c.d["1"]'])[-2:] == ["a.b", 'c.d["1"]']


def test_no_command_ever_runs_unlocked(tmp_path: Path) -> None:
    assert not any("lock=false" in path.read_text() for path in PROVIDERS.rglob("*.py"))


def test_one_file_alone_knows_python_terraform() -> None:
    users = [path.name for path in PROVIDERS.rglob("*.py") if "from python_terraform" in path.read_text()]
    assert users == ["commands.py"]

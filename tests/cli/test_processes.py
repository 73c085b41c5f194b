"""The processes of the Procfile, started as a platform starts them and stopped by SIGTERM."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from controlplane.domain.job import TERMS, JobKind, Lane
from controlplane.localcloud.servers.process import free_port
from controlplane.store.registry import Registry
from controlplane.workers.schedule.duties import DUTIES
from tests.test_settings import environment as settings_of
from tests.web.site import event, signed


@contextmanager
def running(log: Path, env: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ends with SIGTERM, and demands that it ends well."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.cli.main", *command],
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
        process.terminate()
        assert process.wait(timeout=30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def eventually(ask: Callable[[], Any], log: Path, *, within: float = 60) -> Any:
    """What `ask` answers once that is true."""
    deadline = time.monotonic() + within
    while not (answer := ask()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return answer


@pytest.fixture
def queues(env: dict[str, str]) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(env["CONTROLPLANE_BROKER_URL"]) as client:
        client.flushall()
        yield client


def test_what_happens_by_the_clock_does_so_where_nobody_asks(
    env: dict[str, str], queues: redis.Redis, tmp_path: Path
) -> None:
    """By a worker of its lane, and it is done again when its interval has passed."""
    log = tmp_path / "worker.log"
    with (
        Registry(env["CONTROLPLANE_REGISTRY_URL"]) as registry,
        running(log, env, "worker", "--lane", "quick", "--concurrency", "1"),
    ):
        first = eventually(lambda: took(registry), log)
        eventually(lambda: took(registry).get(JobKind.TIMERS, 0) > first[JobKind.TIMERS], log)


def took(registry: Registry) -> dict[JobKind, int]:
    """Kind of what happens by the clock in the quick lane → the number of the last time, once each has
    happened and been put back for the next."""
    quick = [kind for kind in DUTIES if TERMS[kind].lane is Lane.QUICK]
    with registry.connection() as conn:
        rows = conn.execute(
            "SELECT kind, fencing_token FROM job WHERE kind = ANY(%s) AND state = 'waiting'"
            " AND fencing_token IS NOT NULL",
            [quick],
        ).fetchall()
    done = {JobKind(row["kind"]): row["fencing_token"] for row in rows}
    return done if set(done) == set(quick) else {}


def test_a_delivered_event_is_handled_by_a_worker(
    env: dict[str, str], queues: redis.Redis, tmp_path: Path
) -> None:
    """Through web, broker and worker: it is told of by a message, and Stripe knows no such subscription."""
    port = free_port()
    web, worker = tmp_path / "web.log", tmp_path / "worker.log"
    body = event("evt_once")
    with ExitStack() as stack:
        stack.enter_context(running(web, env, "web", "--bind", f"127.0.0.1:{port}", "--workers", "1"))
        stack.enter_context(running(worker, env, "worker", "--lane", "quick", "--concurrency", "1"))
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}"))
        registry = stack.enter_context(Registry(env["CONTROLPLANE_REGISTRY_URL"]))
        eventually(lambda: answers(http), web)
        assert http.post("/webhooks/stripe", content=body, headers=signed(body)).status_code == 200
        eventually(lambda: state(registry, "evt_once") == "parked", worker)
        eventually(lambda: b"Task controlplane.work[" in worker.read_bytes(), worker)
        eventually(lambda: queues.llen("quick") == 0, worker)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def state(registry: Registry, event_id: str) -> str:
    with registry.connection() as conn:
        row = conn.execute("SELECT state FROM stripe_event WHERE id = %s", [event_id]).fetchone()
    assert row is not None
    return str(row["state"])


def checked(*args: str, **changes: str | None) -> tuple[int, str, dict[str, Any]]:
    """`worker --check` with a worker's settings, changed like this: status, stderr, name → check."""
    words = ["worker", "--lane", "long", "--check", "--json", *args]
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *words],
        env=settings_of(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    document = json.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0)
    return done.returncode, done.stderr, {check["name"]: check for check in document["checks"]}


@pytest.fixture
def worker(tmp_path: Path) -> dict[str, str]:
    """What makes a worker's settings of test_settings good on this machine."""
    migrations, terraform, pg_dump = tmp_path / "migrations", tmp_path / "terraform", tmp_path / "pg_dump"
    migrations.mkdir()
    (migrations / "0001_note.sql").write_text("CREATE TABLE app.note (id bigint PRIMARY KEY);")
    for program, said in ((terraform, '{"terraform_version": "1.11.4"}'), (pg_dump, "pg_dump 18.1")):
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
    return {
        "TENANT_MIGRATIONS": str(migrations),
        "TERRAFORM_BINARY": str(terraform),
        "TERRAFORM_WORK_DIR": str(tmp_path / "work"),
        "PG_DUMP": str(pg_dump),
        "COPY_BUCKET": "acme-copies",
    }


def test_a_checked_worker_says_what_it_would_do_and_touches_nothing(
    worker: dict[str, str], tmp_path: Path
) -> None:
    status, errors, found = checked("--concurrency", "3", **worker)
    assert (status, errors) == (0, "")
    assert "3 jobs at once of the long lane" in found["settings"]["detail"]
    assert "sslmode=verify-full" in found["TLS"]["detail"]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"TERRAFORM_BINARY": "/no/such/terraform"}, "Terraform", "/no/such/terraform: No such file"),
        ({"TERRAFORM_WORK_DIR": "/dev/null/work"}, "work folder", "/dev/null: expected a folder"),
        ({"PG_DUMP": "/no/such/pg_dump"}, "pg_dump", "/no/such/pg_dump: No such file"),
    ],
)
def test_a_check_names_what_is_missing_here(
    worker: dict[str, str], change: dict[str, str], name: str, words: str
) -> None:
    status, errors, found = checked(**worker | change)
    assert status == 1
    assert [check["name"] for check in found.values() if not check["ok"]] == [name]
    assert words in found[name]["detail"]
    assert errors == f"error: 1 of {len(found)} checks failed: {name}\n"


def test_a_pg_dump_that_nothing_needs_is_named_and_no_failure(worker: dict[str, str]) -> None:
    status, _, found = checked(**worker | {"PG_DUMP": "no-such-pg_dump", "COPY_BUCKET": None})
    assert status == 0
    assert "no-such-pg_dump is not here" in found["pg_dump"]["detail"]


def test_bad_settings_are_checks_that_failed(worker: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "worker", "--lane", "quick", "--check"],
        env=settings_of(**worker | {"VPC_ID": "nonsense", "REGISTRY_URL": None}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("FAILED  settings")]
    assert len(wrong) == 2
    assert "CONTROLPLANE_REGISTRY_URL: expected to be set" in wrong[0]
    assert "ok      Terraform stacks" in done.stdout


def test_json_is_for_the_check() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "worker", "--lane", "quick", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --json: expected together with --check")


def test_the_procfile_names_commands_that_exist() -> None:
    lines = (Path(__file__).parents[2] / "Procfile").read_text().splitlines()
    commands = {name: shlex.split(command) for name, _, command in (line.partition(": ") for line in lines)}
    assert list(commands) == ["release", "web", "worker", "worker_long"]
    lanes = [words[words.index("--lane") + 1] for words in commands.values() if "--lane" in words]
    assert lanes == list(Lane), "a worker for each"
    for program, *words in commands.values():
        assert program == "controlplane"
        options = [word for word in words if word.startswith("--")]
        shown = subprocess.run(
            [sys.executable, "-m", "controlplane.cli.main", *words[: 2 if words[0] == "db" else 1], "--help"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        assert all(option in shown for option in options)

"""One clear line and the right status, whatever is wrong. Run as people run it: as a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controlplane.cli.api import Api
from controlplane.cli.failure import Failure, Unreachable
from controlplane.localcloud.servers.process import free_port
from tests.cli.conftest import Desk
from tests.web.site import ENVIRONMENT

CLEAN = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


def controlplane(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *args],
        env=CLEAN | (env or {}),
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def line_of(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that it said."""
    assert done.returncode == status, (done.returncode, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# ------------------------------------------------------------------------- settings, catalogue, registry


def test_a_missing_setting_is_one_line() -> None:
    assert line_of(controlplane("db", "check"), 2) == "error: CONTROLPLANE_REGISTRY_URL: expected to be set"


@pytest.mark.parametrize("process", ["web", "worker --lane quick", "worker --lane long", "doctor"])
def test_each_process_names_each_missing_setting(process: str) -> None:
    done = controlplane(*process.split())
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    if process == "doctor":
        assert "run it where a worker runs" in lines.pop()
    assert all(line.startswith("error: ") and ": expected to be set" in line for line in lines)
    authorities = [line for line in lines if line.startswith("error: CONTROLPLANE_DATABASE_SSLROOTCERT: ")]
    assert len(authorities) == (process != "web"), "web reaches no tenant's database"
    assert all("global-bundle.pem" in line for line in authorities)
    assert "error: CONTROLPLANE_BROKER_URL: expected to be set" in lines


def test_a_worker_without_a_lane_hears_which_there_are() -> None:
    done = controlplane("worker")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing option '--lane'" in done.stderr
    assert "quick" in done.stderr
    assert "long" in done.stderr


def test_a_bad_setting_is_named_and_its_secret_kept() -> None:
    token = "CONTROLPLANE_API_TOKENS"
    line = line_of(controlplane("web", env=ENVIRONMENT | {token: "bob:root:canary-canary-canary"}), 2)
    assert line.startswith(f"error: {token}: expected a role of ")
    assert "canary" not in line


def test_an_unreachable_registry_is_one_line() -> None:
    url = f"postgresql://bob:canary@127.0.0.1:{free_port()}/x"  # pragma: allowlist secret
    for command in ("check", "upgrade"):
        line = line_of(controlplane("db", command, env={"CONTROLPLANE_REGISTRY_URL": url}), 3)
        assert "refused" in line
        assert "canary" not in line


def test_the_schema_is_upgraded_and_checked(empty_database_url: str) -> None:
    env = {"CONTROLPLANE_REGISTRY_URL": empty_database_url}
    assert "controlplane db upgrade" in line_of(controlplane("db", "check", env=env), 1)
    assert "applied 0001_registry.sql" in controlplane("db", "upgrade", env=env).stdout
    assert controlplane("db", "upgrade", env=env).stdout == "the schema is current\n"
    assert controlplane("db", "check", env=env).returncode == 0


BAD_CATALOGUES = {
    "version = 2": "version: expected a whole number, 1",
    "version = ": "expected TOML",
    'version = 1\n[plans.team]\nisolation = "none"': "plans.team.isolation",
}


@pytest.mark.parametrize("text", BAD_CATALOGUES)
def test_a_bad_catalogue_names_file_plan_and_field(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plans.toml"
    path.write_text(text)
    done = controlplane("catalogue", "check", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"error: {path}: ") for line in lines)
    assert any(BAD_CATALOGUES[text] in line for line in lines)


def test_a_catalogue_that_is_no_text_file(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "expected UTF-8" in line_of(controlplane("catalogue", "check", str(tmp_path / "binary")), 2)
    assert "No such file" in line_of(controlplane("catalogue", "check", str(tmp_path / "none")), 2)
    assert "directory" in line_of(controlplane("catalogue", "check", str(tmp_path)), 2)


def test_our_own_catalogue_is_good() -> None:
    path = Path(__file__).parents[2] / "controlplane" / "plans.toml"
    assert ": good, " in controlplane("catalogue", "check", str(path)).stdout


# ------------------------------------------------------------------------------------- the API's client


def test_without_an_address_both_variables_are_named() -> None:
    done = controlplane("tenants", "list")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: CONTROLPLANE_API_URL: expected to be set",
        "error: CONTROLPLANE_API_TOKEN: expected to be set",
    ]


@pytest.mark.parametrize("url", ["tenants.example", "ftp://x", "http://api.example", "https://u:p@x"])
def test_a_bad_address_is_named(url: str) -> None:
    env = {"CONTROLPLANE_API_URL": url, "CONTROLPLANE_API_TOKEN": "x"}
    assert "CONTROLPLANE_API_URL: expected https://" in line_of(controlplane("tenants", "list", env=env), 2)


def test_an_unreachable_api_is_one_line() -> None:
    env = {
        "CONTROLPLANE_API_URL": f"http://127.0.0.1:{free_port()}",
        "CONTROLPLANE_API_TOKEN": "canary-token",
    }
    line = line_of(controlplane("tenants", "list", env=env), 3)
    assert env["CONTROLPLANE_API_URL"] in line
    assert "canary" not in line


@pytest.fixture
def black_hole() -> Iterator[socket.socket]:
    """Accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_api_that_says_nothing_is_given_up(
    black_hole: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.cli.api.TIMEOUT", httpx.Timeout(0.3))
    with pytest.raises(Unreachable, match="did not answer in time"):
        Api(url_of(black_hole), "x").get("/v1/tenants")


def test_a_wrong_token_and_a_weak_one(desk: Desk) -> None:
    env = desk.env | {"CONTROLPLANE_API_TOKEN": "canary-token"}
    line = line_of(controlplane("tenants", "list", env=env), 5)
    assert "canary" not in line
    assert line.endswith("`Authorization: Bearer <token>`; is CONTROLPLANE_API_TOKEN right?")
    desk.role = "viewer"
    assert "role operator" in line_of(controlplane("events", "replay", "evt_1", env=desk.env), 5)


@pytest.mark.parametrize(
    "command",
    [
        ("tenants", "show", "ghost"),
        ("tenants", "show", "../../etc"),
        ("tenants", "show", ""),
        ("tenants", "show", ".."),
        ("tenants", "reprovision", "a/b"),
        ("tenants", "reprovision", "ghost"),
        ("tenants", "rotate", "ghost"),
        ("operations", "show", "77"),
        ("operations", "watch", "77"),
        ("operations", "list", "--resource", "ghost"),
        ("events", "show", "evt_ghost"),
        ("events", "replay", "evt_ghost"),
        ("clusters", "show", "c-aaaaaaaaaaaa"),
    ],
)
def test_what_does_not_exist(desk: Desk, command: tuple[str, ...]) -> None:
    done = desk.run(*command)
    assert done.exit_code == 4
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("tenants",),
        ("tenants", "list", "--limit", "0"),
        ("tenants", "show"),
        ("operations", "show", "x"),
        ("operations", "list", "--state", "dead"),
        ("events", "list", "--state", "waiting"),
        ("nothing",),
        ("tenants", "list", "--nothing"),
    ],
)
def test_wrong_usage(desk: Desk, command: tuple[str, ...]) -> None:
    done = desk.run(*command)
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (
            ("tenants", "hold", "acme", "--kind", "xx", "--days", "1"),
            2,
            "kind: expected suspend, serve or plan",
        ),
        (("tenants", "bind", "acme", "--contract", "sub_1"), 2, "tenant: expected its id in full"),
        (
            ("tenants", "bind", "acme", "--contract", "sub_1", "--dry-run"),
            2,
            "tenant: expected its id in full",
        ),
        (("tenants", "rename", "acme", "--slug", "A b"), 2, "slug: expected"),
        (("tenants", "restore", "acme", "--at", "2020"), 2, "at: expected"),
        (("tenants", "reprovision", "acme", "--reason", ""), 2, "reason: expected"),
        (("tenants", "end-hold", "acme", "--kind", "plan"), 4, "has no hold of kind plan: nothing to do"),
        (("tenants", "unfreeze", "acme"), 4, "is not frozen: nothing to do"),
        (("tenants", "close", "acme"), 1, "it closes with its contracts"),
        (("events", "replay", "--because", ""), 2, "because: expected what the reason has in it"),
        (("events", "dismiss", "evt_1", "--reason", ""), 2, "reason: expected"),
    ],
)
def test_what_the_api_refuses_names_what_was_typed_and_quotes_it_once(
    desk: Desk, command: tuple[str, ...], status: int, words: str
) -> None:
    desk.site.found("sub_1", name="Acme")
    done = desk.run(*command)
    assert (done.exit_code, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "\"'" not in done.stderr


def test_wrong_usage_is_told_in_clicks_own_words() -> None:
    """As docs/cli.md says."""
    done = controlplane("tenants", "list", "--nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "\nError: No such option" in done.stderr


def test_a_reason_that_the_api_refuses(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    done = desk.run("tenants", "reprovision", "acme", "--reason", "x" * 300)
    assert done.exit_code == 2
    assert "reason: expected" in done.stderr


def answering(status: int, body: bytes, **headers: str) -> Api:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers=headers)

    return Api("https://api.example", "token", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, b"<html>", Failure, "does not answer like the API"),
        (200, b"[]", Failure, "does not answer like the API"),
        (404, b"<html>", Failure, "is CONTROLPLANE_API_URL right?"),
        (404, b'{"error": {"code": "no_such_url", "message": "x"}}', Failure, "CONTROLPLANE_API_URL right?"),
        (302, b"", Failure, "HTTP 302"),
        (502, b"<html>", Unreachable, "HTTP 502"),
        (503, b'{"error": {"code": "unavailable", "message": "no registry"}}', Unreachable, "no registry"),
        (500, b'{"error": {"code": "internal", "message": "oh"}}', Failure, r"oh \(request req-1\)"),
        (409, b'{"error": {"code": "conflict", "message": "taken"}}', Failure, "taken"),
    ],
)
def test_answers_that_are_none(status: int, body: bytes, kind: type[Failure], words: str) -> None:
    with pytest.raises(kind, match=words) as raised:
        answering(status, body, **{"X-Request-ID": "req-1"}).get("/v1/tenants")
    assert type(raised.value) is kind


# --------------------------------------------------------------------------------------- the process


def test_help_needs_nothing() -> None:
    done = controlplane("--help")
    assert done.returncode == 0
    for name in ("tenants", "operations", "events", "clusters", "doctor", "db", "demo"):
        assert name in done.stdout
    assert controlplane("--version").stdout.startswith("controlplane, version ")


def test_a_reader_that_has_gone_is_no_traceback(desk: Desk) -> None:
    for number in range(30):
        desk.site.found(f"sub_{number}", name=f"Customer {number}")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "tenants", "list"],
        env=CLEAN | desk.env,
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


LISTENS_TO_INTERRUPTS = """
import signal, sys
from controlplane.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.exit(main(["tenants", "list"]))
"""


def test_interrupted_is_130(black_hole: socket.socket) -> None:
    env = CLEAN | {"CONTROLPLANE_API_URL": url_of(black_hole), "CONTROLPLANE_API_TOKEN": "x"}
    with subprocess.Popen(
        [sys.executable, "-c", LISTENS_TO_INTERRUPTS], env=env, stderr=subprocess.PIPE
    ) as process:
        asked, _ = black_hole.accept()
        with asked:
            assert asked.recv(1024)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == b"interrupted"


def test_the_token_is_taken_from_the_environment_alone(desk: Desk) -> None:
    for command in ("tenants", "operations", "events", "clusters"):
        assert "token" not in desk.ok(command, "list", "--help").lower()

"""What an observation amounts to: available, in step, ready; and how it is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.status import (
    ClusterStatus,
    CredentialStatus,
    DatabaseStatus,
    HostnameStatus,
)
from tests.domain.test_planner import NOTHING


@pytest.mark.parametrize(
    ("cluster", "writer", "available"),
    [
        ("available", "available", True),
        ("modifying", "available", False),
        ("available", "creating", False),
        (None, None, False),
    ],
)
def test_a_cluster_is_available_with_its_writer(
    cluster: str | None, writer: str | None, available: bool
) -> None:
    assert ClusterStatus("d", cluster, writer, hardened=True).available is available


@pytest.mark.parametrize(
    ("version", "password_from", "in_step"),
    [("v1", "v1", True), ("v2", "v1", False), ("v1", None, False), (None, None, False)],
)
def test_a_login_is_in_step_with_the_secret_that_it_has(
    version: str | None, password_from: str | None, in_step: bool
) -> None:
    assert CredentialStatus(version, password_from).in_step is in_step


@pytest.mark.parametrize(
    ("id", "status", "ssl", "ready"),
    [
        ("id", "active", "active", True),
        (None, "active", "active", False),
        ("id", "pending", "active", False),
        ("id", "active", "pending_validation", False),
    ],
)
def test_a_hostname_is_ready_when_cloudflare_knows_it_and_both_of_it_are_active(
    id: str | None,  # noqa: A002 — the field's name
    status: str,
    ssl: str,
    ready: bool,
) -> None:
    assert HostnameStatus("www.a.dev", id, status, ssl, poll_due=False).ready is ready


def test_a_database_that_could_not_be_asked_is_shown_as_unknown_and_not_as_gone() -> None:
    assert NOTHING.to_json()["database"] is None
    there = replace(NOTHING, database=DatabaseStatus(True, False, True, "0002", roles=True))
    assert there.to_json()["database"] == {
        "exists": True,
        "hardened": False,
        "logins_open": True,
        "release": "0002",
        "roles": True,
    }

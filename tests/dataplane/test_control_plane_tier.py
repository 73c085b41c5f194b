"""The control plane and a registry of one's own as tiers, over a real HTTP server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from dataplane.control_plane import ControlPlaneTier
from dataplane.errors import RoutingUnavailable
from dataplane.resolver import Resolver
from dataplane.tenant_config import TenantConfig
from dataplane.tiers import (
    EntryRefused,
    RegistryTier,
    TierDown,
)
from tests.dataplane.endpoint import Endpoint
from tests.dataplane.resolving import HOST, entry
from tests.dataplane.tenants import KEYS
from tests.dataplane.tiers import config


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def control_plane(endpoint: Endpoint) -> Iterator[ControlPlaneTier]:
    tier = ControlPlaneTier(endpoint.url + "/", "token-1", KEYS, timeout=0.5, pause=0.0)
    yield tier
    tier.close()


def test_the_resolve_endpoint_is_asked_with_the_token(
    endpoint: Endpoint, control_plane: ControlPlaneTier
) -> None:
    endpoint.entries[HOST] = entry(config(HOST))
    assert control_plane.read(HOST) == config(HOST)
    assert control_plane.read("nobody.example") is None
    assert endpoint.asked == [("/v1/resolve", "Bearer token-1")] * 2


@pytest.mark.parametrize(
    "broken",
    [
        (404, "text/html", b"<h1>Not Found</h1>"),
        (404, "application/json", b'{"error": {"code": "no_such_url", "message": "a wrong base URL"}}'),
        (404, "application/json", b'{"error": "unknown_host"}'),
        (400, "application/json", b'{"error": {"code": "invalid", "field": "page"}}'),
        (200, "text/html", b"<h1>Welcome</h1>"),
        (401, "application/json", b"{}"),
        (500, "application/json", b"{}"),
        (302, "application/json", b"{}"),
        (200, "application/json", b"[]"),
        (200, "application/json", b"{"),
        (200, "application/json", b"[" * 20_000),
        (200, "application/json", b'{"entry": 7}'),
        (200, "application/json", json.dumps({"entry": entry(config("other.example"))}).encode()),
        (200, "application/json", b" " * 100_000),
    ],
    ids=lambda broken: f"{broken[0]}-{broken[1].split('/')[1]}-{broken[2][:8]!r}",
)
def test_anything_else_than_an_answer_means_that_nobody_can_tell(
    endpoint: Endpoint, control_plane: ControlPlaneTier, broken: tuple[int, str, bytes]
) -> None:
    endpoint.broken = broken
    with pytest.raises(TierDown):
        control_plane.read(HOST)
    with pytest.raises(RoutingUnavailable):
        Resolver(fallback=control_plane).resolve(HOST)


def test_a_host_that_the_control_plane_refuses_has_no_tenant(
    endpoint: Endpoint, control_plane: ControlPlaneTier
) -> None:
    endpoint.broken = (400, "application/json", b'{"error": {"code": "invalid", "field": "host"}}')
    assert control_plane.read("localhost") is None


def test_the_endpoint_may_hang_or_be_away(endpoint: Endpoint, control_plane: ControlPlaneTier) -> None:
    endpoint.hang = threading.Event()
    with pytest.raises(TierDown, match="Timeout"):
        control_plane.read(HOST)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = ControlPlaneTier(f"http://127.0.0.1:{unused.getsockname()[1]}", "t", KEYS, pause=60)
        for _ in range(2):
            with pytest.raises(TierDown):
                away.read(HOST)


def test_at_most_so_many_hosts_are_asked_for_at_once(endpoint: Endpoint) -> None:
    tier = ControlPlaneTier(endpoint.url, "t", KEYS, timeout=0.3, concurrent=2, pause=0.0)
    endpoint.hang = threading.Event()
    failures: list[str] = []

    def ask(number: int) -> None:
        try:
            tier.read(f"h{number}.example")
        except TierDown as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(failures) == 6
    assert len(endpoint.asked) <= 6
    assert any("too many" in failure for failure in failures)
    tier.close()


def test_a_registry_is_any_callable() -> None:
    answers = {HOST: config(HOST), "mixed.example": config(HOST)}
    tier = RegistryTier(answers.get, pause=0.0)
    assert tier.read(HOST) == config(HOST)
    assert tier.read("nobody.example") is None
    with pytest.raises(EntryRefused):
        tier.read("mixed.example")

    def broken(host: str) -> TenantConfig | None:
        raise RuntimeError(host)

    with pytest.raises(TierDown, match="RuntimeError"):
        RegistryTier(broken).read(HOST)

"""Host rules: the shared vectors, and what must hold for any header that anybody could send."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.errors import BadHost
from dataplane.hosts import RESERVED, HostKind, Zones, normalise_host, raw_host
from dataplane.tenant_config import cache_key

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hosts.json").read_text())


@pytest.mark.parametrize("case", VECTORS["normalise"], ids=lambda case: ascii(case["raw"])[:60])
def test_normalise_vector(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(BadHost) as caught:
            normalise_host(case["raw"])
        assert caught.value.reason == case["error"]
        assert caught.value.status == (404 if case["error"] == "ip" else 400)
    else:
        assert normalise_host(case["raw"]) == case["host"]
        assert cache_key(case["host"]) == case["key"]


@pytest.mark.parametrize("case", VECTORS["choose"], ids=lambda case: ascii(case)[:80])
def test_choose_vector(case: dict[str, Any]) -> None:
    def choose() -> str:
        return raw_host(case["host"], case["forwarded_host"], trusted_proxies=case["trusted_proxies"])

    if "error" in case:
        with pytest.raises(BadHost) as caught:
            choose()
        assert caught.value.reason == case["error"]
    else:
        assert choose() == case["raw"]


@pytest.mark.parametrize("group", VECTORS["classify"], ids=lambda group: f"{len(group['zones'])} zones")
def test_classify_vectors(group: dict[str, Any]) -> None:
    zones = Zones(tuple(group["zones"]))
    for case in group["cases"]:
        kind, slug = zones.classify(case["host"])
        assert (kind.value, slug) == (case["kind"], case["slug"]), case["host"]


def test_no_reserved_label_is_a_tenants() -> None:
    assert sorted(RESERVED) == VECTORS["reserved"]
    zones = Zones(("tenants.example.com",))
    for label in VECTORS["reserved"]:
        assert zones.classify(f"{label}.tenants.example.com") == (HostKind.PLATFORM, None)
        assert zones.classify(f"{label}.customer.example") == (HostKind.CUSTOM, None)


def test_zones_are_checked_when_they_are_set() -> None:
    assert Zones(("Tenants.Example.COM.",)).zones == ("tenants.example.com",)
    with pytest.raises(BadHost, match="host: expected letters"):
        Zones(("*.example.com",))


headers = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="abcxyz019-._:,[]@/%\\ \x00*\u3002ü\u200dı", max_size=40),
    st.from_regex(r"[A-Za-z0-9-]{1,20}(\.[A-Za-z0-9-]{1,20}){0,4}\.?(:[0-9]{0,6})?", fullmatch=True),
    st.ip_addresses().map(str),
)


def outcome(raw: str) -> tuple[str | None, str | None]:
    try:
        return normalise_host(raw), None
    except BadHost as error:
        return None, error.reason


@given(headers)
def test_any_header_gives_a_plain_name_or_an_error(raw: str) -> None:
    host, reason = outcome(raw)
    if host is None:
        assert reason in {"empty", "duplicate", "port", "ip", "length", "charset", "label", "idn"}
        return
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", host)
    assert len(host) <= 253
    assert all(1 <= len(label) <= 63 for label in host.split("."))
    assert not re.fullmatch(r"[0-9.]+", host)
    assert normalise_host(host) == host, "the key of a key is itself"


@given(st.from_regex(r"[a-z][a-z0-9]{0,9}(\.[a-z][a-z0-9]{0,9}){1,3}", fullmatch=True), st.integers(0, 65535))
def test_spellings_of_one_host_meet_in_one_key(host: str, port: int) -> None:
    assert {
        normalise_host(raw) for raw in (host, host.upper(), host + ".", f"{host}:{port}", f"{host}.:{port}")
    } == {host}


@given(st.from_regex(r"[a-z0-9-]{1,12}(\.[a-z0-9-]{1,12}){0,3}", fullmatch=True))
def test_a_slug_is_only_ever_taken_from_inside_the_zone(prefix: str) -> None:
    zones = Zones(("tenants.example.com",))
    kind, slug = zones.classify(f"{prefix}.tenants.example.com")
    assert kind is not HostKind.CUSTOM
    assert slug is None or (slug == prefix and "." not in slug)
    assert zones.classify(f"tenants.example.com.{prefix}") == (HostKind.CUSTOM, None)

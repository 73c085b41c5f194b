import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Invalid
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.slug import RESERVED, SLUG, slug_from_request, validate_slug, with_suffix
from dataplane.hosts import HostKind, Zones

FALLBACK = "t-abcdefghijkl"
slugs = st.from_regex(SLUG, fullmatch=True).filter(lambda slug: slug not in RESERVED)


@pytest.mark.parametrize(
    "slug", ["abc", "a1b", "a-1", "acme-corp", "a" * 30, "t-abcdefghijk", "t-abcdefghijk1"]
)
def test_good_slugs(slug: str) -> None:
    assert validate_slug(slug) == slug


@pytest.mark.parametrize(
    "slug",
    [
        "",
        "ab",
        "a" * 31,
        "1abc",
        "-abc",
        "abc-",
        "a--b",
        "xn--abc",
        "Abc",
        "a_b",
        "a.b",
        "äbc",
        "abc\n",
        "a b",
    ],
)
def test_bad_slugs(slug: str) -> None:
    with pytest.raises(Invalid, match="slug: expected 3 to 30") as caught:
        validate_slug(slug)
    assert caught.value.field == "slug"


@pytest.mark.parametrize("slug", sorted(RESERVED))
def test_reserved_slugs(slug: str) -> None:
    with pytest.raises(Invalid):
        validate_slug(slug)


@pytest.mark.parametrize("slug", [FALLBACK, "t-zzzzzzzzzz77", "c-abcdefghijkl"])
def test_no_slug_looks_like_an_id_but_the_tenants_own(slug: str) -> None:
    with pytest.raises(Invalid, match="shape of an id"):
        validate_slug(slug)
    with pytest.raises(Invalid, match="shape of an id"):
        validate_slug(slug, tenant_id="t-bbbbbbbbbbbb")
    assert slug_from_request(slug.upper(), tenant_id="t-bbbbbbbbbbbb") == "t-bbbbbbbbbbbb"
    assert validate_slug(slug, tenant_id=slug) == slug


@pytest.mark.parametrize(
    ("requested", "slug"),
    [
        ("acme", "acme"),
        ("  ACME Corp. ", "acme-corp"),
        ("Café Zürich & Co.", "cafe-zurich-co"),
        ("Straße", "strasse"),
        ("STRAẞE", "strasse"),
        ("Ærø Łódź", "aero-lodz"),
        ("O’Neil's", "oneils"),
        ("ﬁne ＡＣＭＥ", "fine-acme"),
        ("İstanbul", "istanbul"),
        ("a -- b !! c", "a-b-c"),
        ("xn--bcher-kva", "xn-bcher-kva"),
        ("a" * 40, "a" * 30),
        ("a" * 29 + " b", "a" * 29),
        ("x\0y\ud800z", "x-y-z"),
    ],
)
def test_a_wish_becomes_the_nearest_slug(requested: str, slug: str) -> None:
    assert slug_from_request(requested, tenant_id=FALLBACK) == slug


@pytest.mark.parametrize("requested", [None, "", " ", "日本語", "1password", "ab", "www", "WWW!", "--", "🎉"])
def test_what_can_not_be_one_falls_back(requested: str | None) -> None:
    assert slug_from_request(requested, tenant_id=FALLBACK) == FALLBACK


def test_a_bad_fallback_is_refused() -> None:
    with pytest.raises(Invalid):
        slug_from_request(None, tenant_id="www")


@pytest.mark.parametrize(
    ("slug", "suffixed"),
    [
        ("acme", "acme-abcdef"),
        ("a" * 30, "a" * 23 + "-abcdef"),
        ("a" * 22 + "-bcdefg", "a" * 22 + "-abcdef"),
    ],
)
def test_the_loser_of_a_collision_gets_a_suffix(slug: str, suffixed: str) -> None:
    assert with_suffix(slug, "t-abcdefghijkl") == suffixed


@pytest.mark.parametrize("tenant_id", ["", "t-abc", "c-abcdefghijkl", "t-ABCDEFGHIJKL"])
def test_a_suffix_needs_a_tenant_id(tenant_id: str) -> None:
    with pytest.raises(Invalid, match="tenant_id"):
        with_suffix("acme", tenant_id)


@given(st.text())
def test_any_wish_gives_a_valid_slug_that_is_stable(requested: str) -> None:
    slug = slug_from_request(requested, tenant_id=FALLBACK)
    assert validate_slug(slug, tenant_id=FALLBACK) == slug
    assert slug_from_request(slug, tenant_id=FALLBACK) == slug


@given(slugs, st.text())
def test_a_suffix_keeps_it_valid(slug: str, subscription: str) -> None:
    suffixed = with_suffix(slug, tenant_id_for(subscription))
    assert validate_slug(suffixed) == suffixed
    assert suffixed != slug or slug.endswith(tenant_id_for(subscription)[2:8])


@given(slugs)
def test_the_data_plane_routes_every_slug_that_is_given_out(slug: str) -> None:
    zones = Zones(("tenants.example.com",))
    assert zones.classify(f"{slug}.tenants.example.com") == (HostKind.SUBDOMAIN, slug)


def test_the_reserved_names_are_those_that_no_data_plane_routes() -> None:
    vectors = json.loads((Path(__file__).parents[1] / "vectors" / "hosts.json").read_text())
    assert sorted(RESERVED) == vectors["reserved"]

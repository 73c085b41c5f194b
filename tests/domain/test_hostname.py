import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import normalise_host, subdomain, validate_custom_domain
from dataplane import hosts

ZONE = "tenants.acme-platform.com"


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("www.acme-corp.example", "www.acme-corp.example"),
        (" WWW.Acme.COM. ", "www.acme.com"),
        ("acme.localhost", "acme.localhost"),
        ("a--b.example", "a--b.example"),
        ("1.2.3.example", "1.2.3.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--strae-oqa.example", "xn--strae-oqa.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("βόλος.example", "xn--nxasmm1c.example"),
        ("ａcme。example", "acme.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("xtenants.acme-platform.com", "xtenants.acme-platform.com"),
        ("other.acme-platform.com", "other.acme-platform.com"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_good_custom_domains(raw: str, host: str) -> None:
    assert validate_custom_domain(raw, ZONE) == host


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", "1 to 253 characters"),
        (".", "a host name alone"),
        ("a." * 127 + "example", "1 to 253 characters"),
        ("https://acme.com", "no scheme"),
        ("acme.com:443", "no scheme, port"),
        ("acme.com/x", "path"),
        ("*.acme.com", "wildcard"),
        ("_dmarc.acme.com", "a host name alone"),
        ("user@acme.com", "a host name alone"),
        ("a..com", "a host name alone"),
        ("-a.com", "a host name alone"),
        ("a-.com", "a host name alone"),
        ("a" * 64 + ".com", "a host name alone"),
        ("acme.com..", "a host name alone"),
        ("acme .com", "a host name alone"),
        ("acme.com\0", "a host name alone"),
        ("[::1]", "a host name alone"),
        ("127.0.0.1", "not an IP address"),
        ("0x7f.0x1", "not an IP address"),
        ("acme.1", "not an IP address"),
        ("localhost", "a full domain"),
        ("printer.local", "the public DNS"),
        ("abc.onion", "the public DNS"),
        ("1.0.0.127.in-addr.arpa", "the public DNS"),
        ("🎉.example", "IDNA 2008"),
        ("İ.example.com:1", "IDNA 2008"),
        ("a\u200db.example", "IDNA 2008"),
        ("ü" * 64 + ".example", "IDNA 2008"),
        ("\ud800.example", "IDNA 2008"),
        (ZONE, "outside the platform's own"),
        (f"acme.{ZONE}", "outside the platform's own"),
        (f"a.b.{ZONE.upper()}.", "outside the platform's own"),
        ("acme-platform.com", "outside the platform's own"),
    ],
)
def test_bad_custom_domains(raw: str, expected: str) -> None:
    with pytest.raises(Invalid, match=f"custom_domain: expected .*{expected}") as caught:
        validate_custom_domain(raw, ZONE)
    assert caught.value.field == "custom_domain"


def test_a_subdomain_is_slug_and_zone() -> None:
    assert subdomain("acme", ZONE) == f"acme.{ZONE}"


@pytest.mark.parametrize(("slug", "zone"), [("www", ZONE), ("Acme", ZONE), ("acme", "a_b.com"), ("acme", "")])
def test_a_subdomain_needs_a_good_slug_and_zone(slug: str, zone: str) -> None:
    with pytest.raises(Invalid):
        subdomain(slug, zone)


labels = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("abcß-.0123。äςσ\u200d"), max_size=12
)


@given(labels, st.sampled_from(["example", "com", "test", "1", "локал", ""]))
@example("straße", "example")
def test_what_passes_is_what_the_data_plane_looks_up(label: str, top: str) -> None:
    raw = f"{label}.{top}"
    try:
        host = normalise_host(raw)
    except Invalid:
        return
    assert normalise_host(host) == host
    assert hosts.normalise_host(host) == host
    assert hosts.normalise_host(raw.strip()) == host

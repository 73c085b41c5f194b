"""Hostnames that route to a tenant: a subdomain of the platform's zone, or a customer's own domain.

A host is kept in one form only (lower case, ASCII, no trailing dot), because the data plane looks it
up by equality and two spellings of one host would be two owners. Two decisions:

*Internationalised names.* The standard library encodes by IDNA 2003, browsers by IDNA 2008 with
UTS 46, and the two send "straße" to two different domains, one of which is somebody else's. So the
`idna` package does it (pure tables; the domain's one import from outside the standard library), by
the same call as in the data plane.

*Reserved names.* Only what never is a host in DNS is refused (`.local`, `.onion`, …). Vendors refuse
more (Cloudflare: `example.com` and kin), each its own set: that is their provider's to report.
`.localhost`, `.test` and `.example` pass, which is what development machines use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import idna

from controlplane.domain.errors import Invalid
from controlplane.domain.slug import validate_slug

MAX_LENGTH = 253
_LABEL = re.compile(r"^(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_NUMBER = re.compile(r"^(?:[0-9]+|0x[0-9a-f]*)\Z")  # a last label like this makes it an IPv4 address
_NOT_IN_DNS = frozenset({"arpa", "internal", "invalid", "local", "onion"})


@dataclass(frozen=True, slots=True)
class RefusedDomain:
    """A custom domain that a subscription names and its tenant did not get. `host`: as written if unfit."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"custom domain {self.host} {self.reason}"


TAKEN = "belongs to another tenant"
"""The one reason that ends without the customer's doing: the other tenant may give it up."""


def normalise_host(raw: str, *, field: str = "host") -> str:
    """Lower case, ASCII (A-labels), no trailing dot, two labels or more. Raises Invalid(field, …)."""
    host = raw.strip()
    if not host or len(host) > MAX_LENGTH:
        raise Invalid(field, f"a host name of 1 to {MAX_LENGTH} characters", got=raw[:80])
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise Invalid(field, "a name that IDNA 2008 allows", got=raw[:80]) from error
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if not all(map(_LABEL.match, labels)) or len(host) > MAX_LENGTH:
        raise Invalid(
            field,
            "a host name alone (letters, digits, hyphens and dots; no scheme, port, path or wildcard)",
            got=raw[:80],
        )
    if _NUMBER.match(labels[-1]):
        raise Invalid(field, "a host name, not an IP address", got=raw[:80])
    if len(labels) < 2:
        raise Invalid(field, "a full domain with a dot in it", got=raw[:80])
    return host


def validate_custom_domain(raw: str, platform_zone: str) -> str:
    """The customer's own domain, normalised. Raises Invalid("custom_domain", …).

    `platform_zone` is normalised. Inside it the platform alone names hosts, and above it the domain
    is the platform's as well.
    """
    host = normalise_host(raw, field="custom_domain")
    if host.rsplit(".", 1)[-1] in _NOT_IN_DNS:
        raise Invalid("custom_domain", "a domain of the public DNS", got=raw[:80])
    if f".{host}".endswith(f".{platform_zone}") or f".{platform_zone}".endswith(f".{host}"):
        raise Invalid("custom_domain", f"a domain outside the platform's own {platform_zone}", got=raw[:80])
    return host


def subdomain(slug: str, zone: str) -> str:
    """`<slug>.<zone>`; both are validated. A slug that a tenant has may look like an id: its own."""
    return normalise_host(f"{validate_slug(slug, tenant_id=slug)}.{zone}")

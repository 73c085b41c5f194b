"""From a raw Host header to the name that routing is looked up by: pure functions, no I/O.

The Host header is written by whoever sends the request, so the rule is narrow and has one result:
two spellings of a host give the same key or an error, and what is not a host name (an address, a
list of two, a path, a control character) is never looked up at all. `X-Forwarded-Host` is
believed only where the operator has said how many proxies of his own stand in front.

The TypeScript package has the same functions and passes the same cases: tests/vectors/hosts.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import idna

from dataplane.errors import BadHost

MAX_HOST = 253  # octets of a name in text form, RFC 1035
MAX_RAW = 1024  # longer than any name in Unicode with a port

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_CHARSET = re.compile(r"[a-z0-9.-]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_SLUG = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){1,28}[a-z0-9]", re.ASCII)

# Labels in a platform zone that no tenant can have: the control plane's own list, held to the vectors.
RESERVED = frozenset(
    {
        "abuse", "account", "accounts", "admin", "administrator", "analytics", "api", "app", "apps",
        "assets", "auth", "autoconfig", "autodiscover", "backup", "beta", "billing", "blog", "calendar",
        "cdn", "checkout", "cname", "console", "contact", "control", "dashboard", "database", "demo", "dev",
        "developer", "developers", "dns", "docs", "download", "email", "example", "files", "ftp", "gateway",
        "git", "graphql", "health", "healthz", "help", "host", "hosting", "hostmaster", "http", "https",
        "images", "imap", "img", "internal", "invalid", "invoice", "invoices", "isatap", "jobs", "kb",
        "legal", "links", "live", "local", "localhost", "login", "logout", "mail", "manage", "media",
        "metrics", "monitor", "mta-sts", "mx", "news", "noc", "null", "oauth", "ops", "origin", "password",
        "pay", "payment", "payments", "ping", "pop", "pop3", "portal", "postmaster", "preview", "private",
        "prod", "production", "proxy", "public", "redirect", "register", "registry", "root", "saml",
        "sandbox", "secure", "security", "server", "signin", "signup", "site", "smtp", "sso", "staff",
        "staging", "static", "stats", "status", "stripe", "subdomain", "support", "sysadmin", "system",
        "tenant", "tenants", "test", "tools", "undefined", "upload", "uploads", "vpn", "webhook",
        "webhooks", "webmail", "webmaster", "whois", "wpad", "www", "xmpp",
    }
)  # fmt: skip


def normalise_host(raw: str) -> str:
    """The lookup name of a raw Host header: lower case, A-labels, no port, no trailing dot.

    Idempotent. Raises BadHost with `reason`:

    ========= =============================================================
    empty     nothing there
    duplicate several values, which servers join with a comma
    port      not one to five digits up to 65535
    ip        an IPv6 or IPv4 address, in any notation that a browser takes
    length    more than 253 octets
    charset   a character that no host name has
    label     an empty label, one over 63 octets, a hyphen at its edge
    idn       a Unicode name that IDNA 2008 (UTS 46, non-transitional) refuses
    ========= =============================================================
    """
    if not raw:
        raise BadHost("empty", "expected a host name, got nothing")
    if len(raw) > MAX_RAW:
        raise BadHost("length", f"expected at most {MAX_HOST} octets")
    if "," in raw:
        raise BadHost("duplicate", "expected one value, got several")
    if raw[0] == "[":
        raise BadHost("ip", "an IPv6 address is never a tenant's host")
    name, colon, port = raw.partition(":")
    if colon:
        if ":" in port:
            raise BadHost("ip", "an IPv6 address is never a tenant's host")
        if not _PORT.fullmatch(port) or int(port) > 65535:
            raise BadHost("port", "expected a port from 0 to 65535 after the colon")
        if not name:
            raise BadHost("empty", "expected a host name before the port")
    name = name.lower() if name.isascii() else _to_ascii(name)
    name = name.removesuffix(".")
    if len(name) > MAX_HOST:
        raise BadHost("length", f"expected at most {MAX_HOST} octets, got {len(name)}")
    if not _NAME.fullmatch(name):
        if _CHARSET.fullmatch(name) or not name:
            raise BadHost("label", "expected labels of 1 to 63 octets without a hyphen at their edges")
        raise BadHost("charset", "expected letters, digits, hyphens and dots")
    if _NUMBER.fullmatch(name, name.rfind(".") + 1):
        raise BadHost("ip", "an IPv4 address is never a tenant's host")
    return name


def _to_ascii(name: str) -> str:
    try:
        return idna.encode(name, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise BadHost("idn", "expected an internationalised name that IDNA 2008 allows") from error


def raw_host(host: str | None, forwarded_host: str | None = None, *, trusted_proxies: int = 0) -> str:
    """Which header value counts: the Host, or with `trusted_proxies` = n > 0 the n-th value from the
    right of X-Forwarded-Host, which the outermost proxy of one's own wrote.

    Servers hand header bytes on as Latin-1; a non-ASCII value is read as the UTF-8 that clients send.
    """
    chosen = host or ""
    if trusted_proxies > 0 and forwarded_host:
        values = forwarded_host.split(",")
        if len(values) >= trusted_proxies:
            chosen = values[-trusted_proxies].strip(" \t")
    if chosen.isascii():
        return chosen
    try:
        return chosen.encode("latin-1").decode("utf-8")
    except UnicodeError as error:
        raise BadHost("charset", "expected ASCII or UTF-8") from error


class HostKind(StrEnum):
    SUBDOMAIN = "subdomain"  # <slug>.<platform zone>
    CUSTOM = "custom"  # a customer's own domain
    PLATFORM = "platform"  # in a platform zone, and no tenant can have it: never looked up


@dataclass(frozen=True, slots=True)
class Zones:
    """The platform's own zones, each as "tenants.example.com". Hosts in a zone that can't be a tenant's are
    answered without asking anybody, so a scanner that tries names in the zone costs nothing behind
    this process."""

    zones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "zones", tuple(normalise_host(zone) for zone in self.zones))

    def classify(self, host: str) -> tuple[HostKind, str | None]:
        """Kind and slug (of a subdomain only) of a *normalised* host. The longest zone counts."""
        best = ""
        for zone in self.zones:
            if len(zone) > len(best) and (host == zone or host.endswith("." + zone)):
                best = zone
        if not best:
            return HostKind.CUSTOM, None
        slug = host[: -len(best) - 1]
        if _SLUG.fullmatch(slug) and not slug.startswith("xn--") and slug not in RESERVED:
            return HostKind.SUBDOMAIN, slug
        return HostKind.PLATFORM, None

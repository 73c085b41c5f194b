"""Slugs: the name of a tenant inside the platform's zone.

A slug is a DNS label that people read and type, so it is short, ASCII, cannot pass for a punycode
label, and never takes a name that the platform or a mail client expects to own. Support names a
tenant by slug or id, so no slug looks like an id but the tenant's own. It comes from a
customer's request, which is free text; whatever can't be made a good slug falls back to the tenant's
id instead of stopping somebody who has paid. Who gets a slug that two want is settled by
the registry, and the loser is given `with_suffix`. Nothing outside is named by it but the host, so a tenant
may be given another one; for a while the one before is still its own, and its host leads to the new one.
"""

from __future__ import annotations

import re
import unicodedata

from controlplane.domain.errors import Invalid
from controlplane.domain.placement import CLUSTER_ID, TENANT_ID

MAX_LENGTH = 30
SLUG = re.compile(r"^[a-z](?:[a-z0-9]|-(?!-)){1,28}[a-z0-9]\Z")

# Names that mail clients and browsers ask for by themselves (RFC 2142, autoconfiguration), that a
# platform needs for itself sooner or later, or that would lend a stranger its authority. No data plane
# routes them either: each has this list, and tests/vectors/hosts.json holds them together.
RESERVED = frozenset(
    {
        "abuse", "account", "accounts", "admin", "administrator", "analytics", "api", "app", "apps",
        "assets", "auth", "autoconfig", "autodiscover", "backup", "beta", "billing", "blog", "calendar",
        "cdn", "checkout", "cname", "console", "contact", "control", "dashboard", "database", "demo", "dev",
        "developer", "developers", "dns", "docs", "download", "email", "example", "files", "ftp", "gateway",
        "git", "graphql", "health", "healthz", "help", "host", "hostmaster", "hosting", "http", "https",
        "imap", "img", "images", "internal", "invalid", "invoice", "invoices", "isatap", "jobs", "kb",
        "legal", "links", "live", "local", "localhost", "login", "logout", "mail", "manage", "media",
        "metrics", "monitor", "mta-sts", "mx", "news", "noc", "null", "oauth", "ops", "origin", "password",
        "pay", "payment", "payments", "ping", "pop", "pop3", "portal", "postmaster", "preview", "private",
        "prod", "production", "proxy", "public", "redirect", "register", "registry", "root", "saml",
        "sandbox", "secure", "security", "server", "signin", "signup", "site", "smtp", "sso", "staff",
        "staging", "static", "stats", "status", "stripe", "subdomain", "support", "sysadmin", "system",
        "tenant", "tenants", "test", "tools", "undefined", "upload", "uploads", "vpn", "webhook",
        "webhooks", "webmaster", "webmail", "whois", "wpad", "www", "xmpp",
    }
)  # fmt: skip

# Latin letters that Unicode does not decompose into a base letter and an accent.
_LETTERS = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l",
        "ı": "i", "ħ": "h", "ŋ": "n", "'": "", "’": "",
    }
)  # fmt: skip


def validate_slug(slug: str, *, tenant_id: str | None = None) -> str:
    """The slug itself. `tenant_id`: of the tenant that it is for, which may be called by its own id.
    Raises Invalid("slug", …)."""
    if not SLUG.match(slug):
        raise Invalid(
            "slug",
            "3 to 30 of a-z, 0-9 and single hyphens, a letter first and no hyphen last",
            got=slug[: 2 * MAX_LENGTH],
        )
    if slug in RESERVED:
        raise Invalid("slug", "a name that is not reserved", got=slug)
    if slug != tenant_id and (TENANT_ID.match(slug) or CLUSTER_ID.match(slug)):
        raise Invalid(
            "slug", "a name that is not of the shape of an id (t- or c- and 12 of a-z, 2-7)", got=slug
        )
    return slug


def slug_from_request(requested: str | None, *, tenant_id: str) -> str:
    """The slug nearest to a customer's request, else the tenant's id.

    "Café Zürich & Co." becomes "cafe-zurich-co". Names that have no Latin letters, begin with a digit,
    are reserved or look like an id get the tenant's: a changed name would be a guess.
    """
    letters = unicodedata.normalize("NFKD", (requested or "")[:256].lower().translate(_LETTERS))
    ascii_only = "".join(c for c in letters.translate(_LETTERS) if not unicodedata.combining(c))
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:MAX_LENGTH].rstrip("-")
    try:
        return validate_slug(slug, tenant_id=tenant_id)
    except Invalid:
        return validate_slug(tenant_id, tenant_id=tenant_id)


def with_suffix(slug: str, tenant_id: str) -> str:
    """The slug for a tenant whose request is taken: `<slug, cut>-<six characters of its id>`.

    Derived, so that every retry finds the same one.
    """
    if not TENANT_ID.match(tenant_id):
        raise Invalid("tenant_id", "t- and 12 of a-z, 2-7", got=tenant_id)
    suffix = "-" + tenant_id[2:8]
    valid = validate_slug(slug, tenant_id=tenant_id)
    return validate_slug(valid[: MAX_LENGTH - len(suffix)].rstrip("-") + suffix)

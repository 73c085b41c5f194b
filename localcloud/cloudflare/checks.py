"""Which hostnames and certificates settings Cloudflare takes, and with which code it refuses others."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from controlplane.localcloud.cloudflare.errors import CloudflareError

LABEL = re.compile(r"^(?!-)[a-z0-9_-]{1,63}(?<!-)$")
RESERVED = ("test", "example", "invalid", "localhost")
PROHIBITED = ("example.com", "example.net", "example.org")
METHODS, TYPES = ("http", "txt", "email"), ("dv",)
SWITCHES = {"http2": 1422, "tls_1_3": 1424}


def hostname(value: Any) -> str:
    """The hostname in lower case. Raises CloudflareError."""
    if not isinstance(value, str) or not value or len(value) > 255:
        raise CloudflareError(1407)
    if not value.isascii():
        raise CloudflareError(1408)
    host = value.lower()
    if host.startswith("*."):
        raise CloudflareError(1448)
    if _is_address(host) or not all(LABEL.match(label) for label in host.split(".")):
        raise CloudflareError(1407)
    if host.rsplit(".", 1)[-1] in RESERVED:
        raise CloudflareError(1409)
    if "." not in host:
        raise CloudflareError(1410)
    if any(host == domain or host.endswith(f".{domain}") for domain in PROHIBITED):
        raise CloudflareError(1411)
    return host


def ssl(value: Any) -> dict[str, Any]:
    """The certificate settings, completed with the defaults. Raises CloudflareError."""
    if not isinstance(value, dict):
        raise CloudflareError(1434)
    method, kind = value.get("method"), value.get("type")
    if (method is None) != (kind is None) or method is None:
        raise CloudflareError(1440)
    if method not in METHODS:
        raise CloudflareError(1432)
    if kind not in TYPES:
        raise CloudflareError(1433)
    bundle = value.get("bundle_method", "ubiquitous")
    if bundle not in ("ubiquitous", "optimal", "force"):
        raise CloudflareError(1449)
    settings = value.get("settings", {})
    if not isinstance(settings, dict):
        raise CloudflareError(1434)
    if settings.get("min_tls_version", "1.2") not in ("1.0", "1.1", "1.2", "1.3"):
        raise CloudflareError(1425)
    for key, code in SWITCHES.items():
        if settings.get(key, "on") not in ("on", "off"):
            raise CloudflareError(code)
    return {
        "type": kind,
        "method": method,
        "bundle_method": bundle,
        "wildcard": value.get("wildcard", False) is True,
        "certificate_authority": value.get("certificate_authority", "google"),
        "settings": settings,
    }


def metadata(value: Any, *, allowed: bool) -> dict[str, str] | None:
    """Raises CloudflareError where the plan has no custom metadata, or it is not text to text."""
    if value is None:
        return None
    if not allowed:
        raise CloudflareError(1413)
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CloudflareError(1401)
    return value


def origin(value: Any, *, known: frozenset[str] | None) -> str | None:
    """`known`: the zone's own names; None where the plan has no custom origins."""
    if value is None:
        return None
    if known is None:
        raise CloudflareError(1414)
    if not isinstance(value, str) or value not in known:
        raise CloudflareError(1421)
    return value


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

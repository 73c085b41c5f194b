"""Where a request is sent whose tenant has moved to another host: to the same path and query there.

The host is the signed entry's. Nothing that a visitor sends can stand in its place: scheme, host and port
come first and end at the path's slash. The port is the one that the visitor asked for, since that is where
the other host is reached, too. The scheme is https where the server or X-Forwarded-Proto says so: TLS ends
at a proxy as a rule, and whoever was led from https to http would send a form in the clear. Who forges the
header leads nobody but himself, and never from https to anything less.

The answer is 308, which keeps method and body, and says no-store: browsers would keep it for ever, while the
tenant may take the old name back (two answers of two moments would lead to and fro) or give it up for good.

The TypeScript package has the same function and passes the same cases: tests/vectors/redirects.json.
"""

from __future__ import annotations

import re

_SECURE = {"http": "https", "ws": "wss"}
_INVISIBLE = re.compile(r"[^!-~]")
_DEFAULT_PORTS = (0, 80, 443)


def location(to: str, *, scheme: str, raw_host: str, target: str, forwarded_proto: str | None = None) -> str:
    """`to`: the host of a TenantConfig that is `moved`. `scheme`: http, https, ws or wss, as the server knows
    it. `raw_host`: the header that `normalise_host` took. `target`: path and query as they were sent."""
    if "https" in (forwarded_proto or "").lower():
        scheme = _SECURE.get(scheme, scheme)
    _, _, port = raw_host.partition(":")
    at = to if not port or int(port) in _DEFAULT_PORTS else f"{to}:{int(port)}"
    path = _INVISIBLE.sub(_escaped, target)
    return f"{scheme}://{at}{path if path.startswith('/') else '/' + path}"


def _escaped(found: re.Match[str]) -> str:
    """Servers hand the bytes of a request on as Latin-1."""
    return "".join(f"%{byte:02X}" for byte in found[0].encode("latin-1", "replace"))

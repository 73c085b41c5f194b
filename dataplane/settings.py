"""The data plane from environment variables: the only place that knows their names.

=============================  =====================================================================
DATAPLANE_CONFIG_KEYS          required: `k1:<base64 of 32+ bytes>[,k0:…]`; all of them verify
DATAPLANE_CACHE_URL            `redis://…` of the config cache
DATAPLANE_RESOLVE_URL          base URL of the control plane, for what the cache does not have
DATAPLANE_RESOLVE_TOKEN        its bearer token; required with DATAPLANE_RESOLVE_URL
DATAPLANE_PLATFORM_ZONES       the platform's own zones, comma separated (default: none are known)
DATAPLANE_RELEASES             the tenants' releases that this version of the application serves, such
                               as `0003..0005`, `0003..` (default: all); others get a 503
DATAPLANE_TRUSTED_PROXIES      how many of one's own set X-Forwarded-Host (default 0)
DATAPLANE_POOL_BUDGET          connections of this process over all tenants, those of threads and those
                               of coroutines together (default 100)
DATAPLANE_CLUSTER_BUDGET       connections to one cluster over all processes (default: not limited)
DATAPLANE_SSLMODE              libpq's: disable, allow, prefer, require, verify-ca, verify-full (default)
DATAPLANE_SSLROOTCERT          a PEM file of certificate authorities, or `system` with `verify-full`;
                               required by verify-full and verify-ca. For RDS its `global-bundle.pem`
DATAPLANE_WAKE_SECONDS         how long a visitor waits for a paused database (default 45); a few seconds
                               less than what stands in front waits for an answer
DATAPLANE_STALE_SECONDS        how long known tenants are served with all behind down (default 21600)
DATAPLANE_ENDPOINT_MAP         a JSON file `{"host:port": "address:port"}`; empty in production
=============================  =====================================================================

One of DATAPLANE_CACHE_URL and DATAPLANE_RESOLVE_URL must be there; production has both. AWS_* are
boto3's own. All mistakes are reported at once, a line for each; an empty variable counts as not set.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from redis.connection import parse_url

from dataplane.async_pools import AsyncKeyedPools
from dataplane.checkout import Limits
from dataplane.connect import WAKE_SECONDS, Connector, Transport
from dataplane.control_plane import ControlPlaneTier
from dataplane.credentials import Credentials, SecretsManagerCredentials
from dataplane.endpoints import EndpointMap
from dataplane.errors import BadHost
from dataplane.fleet import FleetBudget
from dataplane.hosts import Zones
from dataplane.invalidations import InvalidationListener
from dataplane.memory import Policy
from dataplane.pools import KeyedPools
from dataplane.releases import ALL, Releases
from dataplane.resolver import Resolver
from dataplane.scheduler import Scheduler
from dataplane.tenant_config import MIN_KEY_BYTES
from dataplane.tiers import RedisTier
from dataplane.wsgi import TenantMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

T = TypeVar("T")

PREFIX = "DATAPLANE_"
NAMES = frozenset(
    PREFIX + name
    for name in (
        "CONFIG_KEYS", "CACHE_URL", "RESOLVE_URL", "RESOLVE_TOKEN", "PLATFORM_ZONES", "RELEASES",
        "TRUSTED_PROXIES", "POOL_BUDGET", "CLUSTER_BUDGET", "SSLMODE", "SSLROOTCERT",
        "STALE_SECONDS", "ENDPOINT_MAP", "WAKE_SECONDS",
    )
)  # fmt: skip
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
AUTHORITIES = (
    "a PEM file of certificate authorities (for RDS: download "
    "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem, put it into the image, for example "
    "as /etc/ssl/certs/global-bundle.pem, and name that path here)"
)


class SettingsError(ValueError):
    """DATAPLANE_* variables are missing or can't be used: a line for each, which names it."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """A resolver and the two kinds of pools over one set of logins. Pools open nothing until used."""

    resolver: Resolver
    pools: KeyedPools
    async_pools: AsyncKeyedPools
    trusted_proxies: int

    def wsgi(self, app: WSGIApplication, **options: Any) -> TenantMiddleware:
        """`app` behind the tenant middleware; `options` are the middleware's."""
        return TenantMiddleware(
            app, self.resolver, self.pools, **{"trusted_proxies": self.trusted_proxies, **options}
        )

    def close(self) -> None:
        """Stop listening and close the idle connections of the thread pools."""
        self.resolver.close()
        self.pools.close()


def from_environment(env: Mapping[str, str], *, credentials: Credentials | None = None) -> DataPlane:
    """`credentials`: instead of Secrets Manager. Raises SettingsError with all mistakes."""
    read = _Reader(env)
    keys = read.required("DATAPLANE_CONFIG_KEYS", parse_keys)
    cache_url = read.optional("DATAPLANE_CACHE_URL", _redis_url)
    resolve_url = read.optional("DATAPLANE_RESOLVE_URL", _http_url)
    token = read.required("DATAPLANE_RESOLVE_TOKEN", _token) if read.has("DATAPLANE_RESOLVE_URL") else ""
    if not read.has("DATAPLANE_CACHE_URL") and not read.has("DATAPLANE_RESOLVE_URL"):
        read.wrong("DATAPLANE_CACHE_URL", "expected it or DATAPLANE_RESOLVE_URL to be set")
    zones = read.optional("DATAPLANE_PLATFORM_ZONES", _zones) or Zones()
    stale = read.number("DATAPLANE_STALE_SECONDS", 6 * 3600, least=0)
    releases = read.optional("DATAPLANE_RELEASES", Releases.parse) or ALL
    transport = _transport(read)
    limits = Limits(budget=read.number("DATAPLANE_POOL_BUDGET", 100, least=1))
    cluster_budget = None
    if read.has("DATAPLANE_CLUSTER_BUDGET"):
        cluster_budget = read.number("DATAPLANE_CLUSTER_BUDGET", 1, least=1)
        if not read.has("DATAPLANE_CACHE_URL"):
            read.wrong("DATAPLANE_CACHE_URL", "expected it together with DATAPLANE_CLUSTER_BUDGET")
    trusted_proxies = read.number("DATAPLANE_TRUSTED_PROXIES", 0, least=0)
    read.misspellings()
    if read.errors:
        raise SettingsError("\n".join(read.errors))

    resolver = Resolver(
        cache=RedisTier.from_url(cache_url, keys) if cache_url else None,
        fallback=ControlPlaneTier(resolve_url, token, keys) if resolve_url else None,
        invalidations=InvalidationListener(cache_url) if cache_url else None,
        zones=zones,
        policy=Policy(max_age=stale),
        releases=releases,
    )
    if credentials is None:
        credentials = SecretsManagerCredentials()
    connector = Connector(credentials, transport)
    fleet = None
    if cluster_budget is not None and cache_url:
        fleet = FleetBudget.from_url(cache_url, limit=cluster_budget)
    scheduler = Scheduler[Any](limits)
    pools = KeyedPools(connector, scheduler=scheduler, fleet=fleet)
    async_pools = AsyncKeyedPools(connector, scheduler=scheduler, fleet=fleet)
    resolver.subscribe(pools.invalidated)
    resolver.subscribe(async_pools.invalidated)
    return DataPlane(resolver, pools, async_pools, trusted_proxies)


class _Reader:
    """Reads variables, and gathers what is wrong with them in `errors` instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = {name: value for name, value in env.items() if value and name.startswith(PREFIX)}
        self.errors: list[str] = []

    def has(self, name: str) -> bool:
        return name in self._env

    def wrong(self, name: str, what: str) -> None:
        self.errors.append(f"{name}: {what}")

    def optional(self, name: str, parse: Callable[[str], T]) -> T | None:
        text = self._env.get(name)
        if text is None:
            return None
        try:
            return parse(text)
        except SettingsError as error:
            self.errors.append(str(error))  # it names the variable itself
        except (ValueError, BadHost) as error:
            self.wrong(name, str(error))
        return None

    def required(self, name: str, parse: Callable[[str], T]) -> T:
        """Where nothing can be returned `errors` says why, and stops the start."""
        if not self.has(name):
            self.wrong(name, "expected a value, it is not set")
        return self.optional(name, parse)  # type: ignore[return-value]

    def number(self, name: str, default: int, *, least: int) -> int:
        def parse(text: str) -> int:
            if not text.isdecimal() or int(text) < least:
                raise ValueError(f"expected a whole number of at least {least}, got {text!r}")
            return int(text)

        found = self.optional(name, parse)
        return default if found is None else found

    def misspellings(self) -> None:
        """A name like one of ours that is not set is one of ours. Others may be the application's."""
        unset = {name.removeprefix(PREFIX): name for name in NAMES - set(self._env)}
        for name in sorted(set(self._env) - NAMES):
            alike = difflib.get_close_matches(name.removeprefix(PREFIX), unset, n=1, cutoff=0.85)
            if alike:
                self.wrong(name, f"no such setting; is it a misspelling of {unset[alike[0]]}?")


def parse_keys(text: str) -> dict[str, bytes]:
    """`k1:<base64>[,k0:<base64>]` → key id → key. Raises SettingsError without showing a key."""
    keys: dict[str, bytes] = {}
    for position, part in enumerate(text.split(","), 1):
        key_id, colon, encoded = part.strip().partition(":")
        where = f"DATAPLANE_CONFIG_KEYS: key {position}"
        if not colon or not key_id or "." in key_id:
            raise SettingsError(f"{where}: expected <key id>:<base64>, the id without a dot")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise SettingsError(f"{where} ({key_id}): expected base64") from None
        if len(key) < MIN_KEY_BYTES:
            raise SettingsError(
                f"{where} ({key_id}): expected at least {MIN_KEY_BYTES} bytes, got {len(key)}"
            )
        keys[key_id] = key
    return keys


def _transport(read: _Reader) -> Transport:
    """libpq would find out at the first connect, which is the first customer's request."""
    given = read.has("DATAPLANE_SSLMODE")
    sslmode = read.optional("DATAPLANE_SSLMODE", _sslmode) if given else "verify-full"
    root = read.optional("DATAPLANE_SSLROOTCERT", _authorities)
    if root == "system" and sslmode not in {None, "verify-full"}:
        read.wrong(
            "DATAPLANE_SSLMODE", f"expected verify-full with the authorities `system`, got {sslmode!r}"
        )
    if sslmode in {"verify-ca", "verify-full"} and not read.has("DATAPLANE_SSLROOTCERT"):
        needed = f"expected to be set, as DATAPLANE_SSLMODE is {sslmode}: {AUTHORITIES}"
        read.wrong("DATAPLANE_SSLROOTCERT", needed)
    endpoints = read.optional("DATAPLANE_ENDPOINT_MAP", lambda text: EndpointMap(Path(text)))
    wake = read.number("DATAPLANE_WAKE_SECONDS", round(WAKE_SECONDS), least=1)
    return Transport(sslmode=sslmode or "verify-full", sslrootcert=root, endpoints=endpoints, wake=wake)


def _sslmode(text: str) -> str:
    if text not in SSL_MODES:
        raise ValueError(f"expected one of {', '.join(SSL_MODES)}, got {text!r}")
    return text


def _authorities(text: str) -> str:
    if text != "system":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=text)
        except ssl.SSLError:
            raise ValueError(f"expected {AUTHORITIES}; {text!r} holds no PEM certificates") from None
        except OSError as error:
            raise ValueError(f"expected {AUTHORITIES}; {text!r}: {error.strerror}") from None
    return text


def _redis_url(text: str) -> str:
    """What redis-py can't read it would say without the variable's name, and perhaps with the password."""
    problem = ValueError("expected redis://[[user]:password@]host[:port][/number], rediss:// or unix://path")
    parse: Callable[[str], Any] = parse_url  # redis-py leaves it untyped
    try:
        parts = urlsplit(text)
        parse(text)
        host = parts.hostname and parts.port != 0 and re.fullmatch(r"/?[0-9]*", parts.path)
    except (ValueError, TypeError):
        raise problem from None
    if not (parts.path if parts.scheme == "unix" else host):
        raise problem
    return text


def _http_url(text: str) -> str:
    problem = ValueError("expected http://host[:port][/path] or https://")
    try:
        parts = urlsplit(text)
        host = parts.hostname and parts.port != 0
    except ValueError:
        raise problem from None
    if parts.scheme not in {"http", "https"} or not host or re.search(r"\s", text):
        raise problem
    return text


def _token(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("expected printable ASCII characters without spaces")
    return text


def _zones(text: str) -> Zones:
    names = [name.strip() for name in text.split(",")]
    return Zones(tuple(name for name in names if name))

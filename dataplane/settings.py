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
DATAPLANE_SSLMODE              libpq's (default `verify-full`)
DATAPLANE_SSLROOTCERT          libpq's: a file, or `system`
DATAPLANE_TENANT_ROLE          `arn:…:role/{placement}`: read each secret as the tenant's own role
DATAPLANE_STALE_SECONDS        how long known tenants are served with all behind down (default 21600)
DATAPLANE_ENDPOINT_MAP         a JSON file `{"host:port": "address:port"}`; empty in production
=============================  =====================================================================

One of DATAPLANE_CACHE_URL and DATAPLANE_RESOLVE_URL must be there; production has both. AWS_* are
boto3's own.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataplane.async_pools import AsyncKeyedPools
from dataplane.connect import Connector, Transport
from dataplane.contract import MIN_KEY_BYTES
from dataplane.control_plane import ControlPlaneLevel
from dataplane.credentials import Credentials, SecretsManagerCredentials
from dataplane.endpoints import EndpointMap
from dataplane.errors import BadHost
from dataplane.fleet import FleetBudget
from dataplane.grants import Limits
from dataplane.hosts import Zones
from dataplane.ledger import Ledger
from dataplane.levels import RedisLevel
from dataplane.memory import Policy
from dataplane.notices import NoticeListener
from dataplane.pools import KeyedPools
from dataplane.releases import ALL, Releases
from dataplane.resolver import Resolver
from dataplane.wsgi import TenantMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class SettingsError(ValueError):
    """A DATAPLANE_* variable is missing or has a value that can't be used; the message names it."""


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
    """`credentials`: instead of Secrets Manager. Raises SettingsError."""
    keys = parse_keys(_required(env, "DATAPLANE_CONFIG_KEYS"))
    cache_url, resolve_url = env.get("DATAPLANE_CACHE_URL"), env.get("DATAPLANE_RESOLVE_URL")
    if not cache_url and not resolve_url:
        raise SettingsError("DATAPLANE_CACHE_URL: expected it or DATAPLANE_RESOLVE_URL to be set")
    if cache_url and not cache_url.startswith(("redis://", "rediss://", "unix://")):
        raise SettingsError("DATAPLANE_CACHE_URL: expected redis://, rediss:// or unix://")
    if resolve_url and not resolve_url.startswith(("http://", "https://")):
        raise SettingsError("DATAPLANE_RESOLVE_URL: expected http:// or https://")
    fallback = None
    if resolve_url:
        fallback = ControlPlaneLevel(resolve_url, _required(env, "DATAPLANE_RESOLVE_TOKEN"), keys)
    resolver = Resolver(
        cache=RedisLevel.from_url(cache_url, keys) if cache_url else None,
        fallback=fallback,
        notices=NoticeListener(cache_url) if cache_url else None,
        zones=_zones(env),
        policy=Policy(max_age=_number(env, "DATAPLANE_STALE_SECONDS", 6 * 3600, least=0)),
        releases=_releases(env),
    )
    if credentials is None:
        credentials = _secrets_manager(env)
    connector = Connector(credentials, _transport(env))
    limits = Limits(budget=_number(env, "DATAPLANE_POOL_BUDGET", 100, least=1))
    fleet = None
    if env.get("DATAPLANE_CLUSTER_BUDGET"):
        fleet = FleetBudget.from_url(
            _required(env, "DATAPLANE_CACHE_URL"), limit=_number(env, "DATAPLANE_CLUSTER_BUDGET", 1, least=1)
        )
    ledger = Ledger[Any](limits)
    pools = KeyedPools(connector, ledger=ledger, fleet=fleet)
    async_pools = AsyncKeyedPools(connector, ledger=ledger, fleet=fleet)
    resolver.subscribe(pools.noticed)
    resolver.subscribe(async_pools.noticed)
    return DataPlane(resolver, pools, async_pools, _number(env, "DATAPLANE_TRUSTED_PROXIES", 0, least=0))


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


def _transport(env: Mapping[str, str]) -> Transport:
    sslmode = env.get("DATAPLANE_SSLMODE") or "verify-full"
    if sslmode not in SSL_MODES:
        raise SettingsError(f"DATAPLANE_SSLMODE: expected one of {', '.join(SSL_MODES)}, got {sslmode!r}")
    path = env.get("DATAPLANE_ENDPOINT_MAP")
    try:
        endpoints = EndpointMap(Path(path)) if path else None
    except ValueError as error:
        raise SettingsError(f"DATAPLANE_ENDPOINT_MAP: {error}") from error
    return Transport(
        sslmode=sslmode, sslrootcert=env.get("DATAPLANE_SSLROOTCERT") or None, endpoints=endpoints
    )


def _zones(env: Mapping[str, str]) -> Zones:
    names = [name.strip() for name in env.get("DATAPLANE_PLATFORM_ZONES", "").split(",")]
    try:
        return Zones(tuple(name for name in names if name))
    except BadHost as error:
        raise SettingsError(f"DATAPLANE_PLATFORM_ZONES: {error}") from error


def _releases(env: Mapping[str, str]) -> Releases:
    text = env.get("DATAPLANE_RELEASES")
    try:
        return Releases.parse(text) if text else ALL
    except ValueError as error:
        raise SettingsError(f"DATAPLANE_RELEASES: {error}") from error


def _secrets_manager(env: Mapping[str, str]) -> SecretsManagerCredentials:
    try:
        return SecretsManagerCredentials(role=env.get("DATAPLANE_TENANT_ROLE") or None)
    except ValueError as error:
        raise SettingsError(f"DATAPLANE_TENANT_ROLE: {error}") from error


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise SettingsError(f"{name}: expected a value, it is not set")
    return value


def _number(env: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        raise SettingsError(f"{name}: expected a whole number of at least {least}, got {text!r}")
    return int(text)

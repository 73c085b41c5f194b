"""TenantConfig v1: what the control plane publishes and every data plane reads.

This is the one schema that the Python workers, the Python data plane and the TypeScript package
share; `tests/vectors/tenant_config.json` holds entries that all three must read alike. An entry
lives in Redis under `tenant:host:<host>` as

    v1.<key id>.<payload, base64url>.<HMAC-SHA256, base64url>

The signature covers the host as well as the payload, so an entry copied under another host's key is
refused (a request for A can't be sent to B by whoever can write to the cache). Two keys may be live
at a time, which is how a key is rolled. `epoch` comes from one sequence of the registry, over all
tenants, so that of two entries for one host the newer is known even when the host changed hands. Whoever
verifies can also sign, so a high epoch proves nothing: the registry's word stands above it
(`workers/steps/routes.py`, `dataplane/resolver.py`).
Invalidations on the channel `tenant:invalidations` say which host changed; they carry no configuration and no
signature, so whoever hears one looks again and believes what is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dataplane.errors import BadHost
from dataplane.hosts import normalise_host

FORMAT = "v1"
KEY_PREFIX = "tenant:host:"
INVALIDATION_CHANNEL = "tenant:invalidations"
MAX_ENTRY_BYTES = 16 * 1024
MAX_NOTICE_BYTES = 4096
MIN_KEY_BYTES = 32
MAX_EPOCH = 2**48 - 1  # no sequence gets there; far below what JavaScript's numbers hold exactly
EPOCH_STEP = 1_000_000  # an epoch further beyond the registry's sequence than this is forged
MAX_POOL_SIZE = 1000

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class TenantConfigError(ValueError):
    """The entry is not a TenantConfig v1 that may be trusted."""


class Status(StrEnum):
    """How a request for the host is answered."""

    PROVISIONING = "provisioning"  # 503 with Retry-After
    ACTIVE = "active"
    SUSPENDED = "suspended"  # 403
    MOVED = "moved"  # 308 to another host of the same tenant
    GONE = "gone"  # 404: a tombstone, kept so that a late write of an older epoch loses


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the tenant's database is, and the ARN of the secret that opens it. `port`: 1 to 65535."""

    host: str
    port: int
    name: str
    secret: str


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """One host's routing entry. `database` is None unless `status` is active, `moved_to` unless it is moved:
    the tenant's host from now on, as `normalise_host` leaves it.

    `pool_size`: connections one process may hold for this tenant. `dedicated`: the pool stands
    outside the shared budget. `release`: the newest schema migration of the tenant's database.
    `profile`: plan name, subscription status and limits, for the application's own use.
    """

    host: str
    tenant_id: str
    slug: str
    status: Status
    epoch: int
    plan: str
    pool_size: int
    dedicated: bool
    release: str | None
    database: DatabaseAddress | None
    profile: Mapping[str, Any]
    moved_to: str | None = None

    def to_payload(self) -> dict[str, Any]:
        database = self.database
        return {
            "v": 1,
            "host": self.host,
            "tenant_id": self.tenant_id,
            "slug": self.slug,
            "status": self.status.value,
            "epoch": self.epoch,
            "plan": self.plan,
            "pool_size": self.pool_size,
            "dedicated": self.dedicated,
            "release": self.release,
            "database": None
            if database is None
            else {
                "host": database.host,
                "port": database.port,
                "name": database.name,
                "secret": database.secret,
            },
            "profile": dict(self.profile),
            "moved_to": self.moved_to,
        }

    @classmethod
    def from_payload(cls, payload: Any) -> TenantConfig:
        """Raises ContractError, naming the field, where something is missing or of the wrong kind."""
        if not isinstance(payload, dict):
            raise TenantConfigError("payload: expected an object")
        if payload.get("v") != 1:
            raise TenantConfigError(f"v: expected 1, got {payload.get('v')!r}")
        word = _field(payload, "status", str)
        try:
            status = Status(word)
        except ValueError as error:
            expected = ", ".join(member.value for member in Status)
            raise TenantConfigError(f"status: expected one of {expected}, got {word!r}") from error
        raw = payload.get("database")
        database = None
        if raw is not None:
            if not isinstance(raw, dict):
                raise TenantConfigError("database: expected an object or null")
            database = DatabaseAddress(
                host=_field(raw, "host", str, within="database."),
                port=_number(raw, "port", 1, 65535, within="database."),
                name=_field(raw, "name", str, within="database."),
                secret=_field(raw, "secret", str, within="database."),
            )
        if status is Status.ACTIVE and database is None:
            raise TenantConfigError("database: expected an object for an active tenant")
        host = _field(payload, "host", str)
        release = payload.get("release")
        if release is not None and not isinstance(release, str):
            raise TenantConfigError("release: expected a string or null")
        return cls(
            host=host,
            tenant_id=_field(payload, "tenant_id", str),
            slug=_field(payload, "slug", str),
            status=status,
            epoch=_number(payload, "epoch", 0, MAX_EPOCH),
            plan=_field(payload, "plan", str),
            pool_size=_number(payload, "pool_size", 1, MAX_POOL_SIZE),
            dedicated=_field(payload, "dedicated", bool),
            release=release,
            database=database,
            profile=_field(payload, "profile", dict),
            moved_to=_moved_to(payload, host) if status is Status.MOVED else None,
        )


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What is published after a change. `kind` "config": the entry of `host` has changed and is of
    `epoch` now (0: not known, look in any case). "credential": the database login of `tenant_id` has
    changed; `host` and `epoch` mean nothing then."""

    kind: str
    host: str
    epoch: int
    tenant_id: str

    def encode(self) -> bytes:
        fields = {"kind": self.kind, "host": self.host, "epoch": self.epoch, "tenant_id": self.tenant_id}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Invalidation | None:
        """None where it is not an invalidation that this version knows. Left out or null: `kind` is "config",
        `host` and `tenant_id` are empty, `epoch` is 0."""
        try:
            fields = json.loads(data) if len(data) <= MAX_NOTICE_BYTES else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        kind, host = fields.get("kind") or "config", fields.get("host") or ""
        epoch, tenant_id = fields.get("epoch") or 0, fields.get("tenant_id") or ""
        if (
            kind not in ("config", "credential")
            or not isinstance(host, str)
            or not isinstance(tenant_id, str)
        ):
            return None
        if type(epoch) is not int or not 0 <= epoch <= MAX_EPOCH:
            return None
        return cls(kind, host, epoch, tenant_id)


def _field(payload: dict[str, Any], name: str, kind: type, *, within: str = "") -> Any:
    value = payload.get(name)
    if not isinstance(value, kind):
        raise TenantConfigError(f"{within}{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _moved_to(payload: dict[str, Any], host: str) -> str:
    """It is written into a header: a plain host name and nothing else, and not the one that was asked for."""
    name: str = _field(payload, "moved_to", str)
    try:
        plain = normalise_host(name) == name
    except BadHost:
        plain = False
    if not plain or name == host:
        raise TenantConfigError(f"moved_to: expected another host's name, got {name[:80]!r}")
    return name


def _number(payload: dict[str, Any], name: str, least: int, most: int, *, within: str = "") -> int:
    value = payload.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        got = repr(value) if isinstance(value, int) else type(value).__name__
        raise TenantConfigError(f"{within}{name}: expected an integer from {least} to {most}, got {got}")
    return value


def cache_key(host: str) -> str:
    """The Redis key of a normalised host."""
    return KEY_PREFIX + host


def sign(payload: Mapping[str, Any], *, key_id: str, key: bytes) -> str:
    """The entry for `payload["host"]`. `key`: at least 32 bytes; `key_id` has no dot."""
    if len(key) < MIN_KEY_BYTES:
        raise TenantConfigError(f"key: expected at least {MIN_KEY_BYTES} bytes, got {len(key)}")
    body = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    mac = _mac(key, key_id, payload["host"], body)
    entry = f"{FORMAT}.{key_id}.{_encode(body)}.{_encode(mac)}"
    if len(entry) > MAX_ENTRY_BYTES:
        raise TenantConfigError(f"entry: longer than {MAX_ENTRY_BYTES} bytes, which every reader refuses")
    return entry


def verify(entry: str | bytes, *, host: str, keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The payload of an entry found under `host`. Raises ContractError."""
    text = entry.decode("ascii", "replace") if isinstance(entry, bytes) else entry
    if len(text) > MAX_ENTRY_BYTES:
        raise TenantConfigError(f"entry: longer than {MAX_ENTRY_BYTES} bytes")
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != FORMAT:
        raise TenantConfigError("entry: expected v1.<key id>.<payload>.<signature>")
    key = keys.get(parts[1])
    if key is None:
        raise TenantConfigError("entry: signed with a key that is not known here")
    try:
        body, mac = _decode(parts[2]), _decode(parts[3])
    except (ValueError, binascii.Error) as error:
        raise TenantConfigError("entry: not base64url") from error
    if not hmac.compare_digest(mac, _mac(key, parts[1], host, body)):
        raise TenantConfigError("entry: the signature does not fit this host and payload")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TenantConfigError("entry: the payload is not JSON") from error
    if not isinstance(payload, dict) or payload.get("host") != host:
        raise TenantConfigError("host: the entry is another host's")
    return payload


def _mac(key: bytes, key_id: str, host: str, body: bytes) -> bytes:
    return hmac.digest(key, f"{FORMAT}\n{key_id}\n{host}\n".encode() + body, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if not _BASE64URL.fullmatch(text):  # b64decode would take "+", "/" and padding as well
        raise binascii.Error("not base64url without padding")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

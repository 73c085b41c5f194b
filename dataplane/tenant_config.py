"""TenantConfig v2: what the control plane publishes and every data plane reads.

This is the one schema that the Python workers, the Python data plane and the TypeScript package
share; `tests/vectors/tenant_config.json` holds entries that all three must read alike. An entry
lives in Redis under `tenant:host:<host>` as

    v2-hmac-sha256.<key id>.<payload, base64url>.<HMAC-SHA256, base64url>

whose first part names the version and the signature scheme, and is signed with the rest.
The signature covers the host as well as the payload, so an entry copied under another host's key is
refused (a request for A can't be sent to B by whoever can write to the cache). Two keys may be live
at a time, which is how a key is rolled. `epoch` comes from one sequence of the registry, over all
tenants, so that of two entries for one host the newer is known even when the host changed hands. Whoever
verifies can also sign, so a high epoch proves nothing: the registry's word stands above it
(`workers/steps/routes.py`, `dataplane/resolver.py`).

An entry is believed until `not_after`, so that an old one that somebody has kept does not lead to a
placement for ever; the control plane issues it anew long before. Both times are whole seconds since 1970:
compared as they are, in either language, with no text to be read in two ways. An entry that has expired is
still better than none (`resolver.py` says when it is used).

What opens the database comes in two fields that are each other's check: the session of `database.role` is
tagged with `placement`, and AWS opens `database.secret` to it only where the secret bears the same tag. Code
that mixes up two tenants' entries is refused there.

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

VERSION = 2
FORMAT = "v2-hmac-sha256"
KEY_PREFIX = "tenant:host:"
INVALIDATION_CHANNEL = "tenant:invalidations"
MAX_ENTRY_BYTES = 16 * 1024
MAX_NOTICE_BYTES = 4096
MIN_KEY_BYTES = 32
MAX_EPOCH = 2**48 - 1  # no sequence gets there; far below what JavaScript's numbers hold exactly
EPOCH_STEP = 1_000_000  # an epoch further beyond the registry's sequence than this is forged
MAX_POOL_SIZE = 1000
LIFETIME_SECONDS = 30 * 24 * 3600
REISSUE_SECONDS = LIFETIME_SECONDS // 3
"""An entry that is believed for no longer than this is issued anew: ten days are left to a control plane that
is down."""
MAX_SECONDS = 253_402_300_799  # the end of the year 9999, which every language can write

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PLACEMENT = re.compile(r"[a-z0-9-]{2,63}", re.ASCII)
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,512}", re.ASCII)
_SECRET = re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:([!-~]{1,512})", re.ASCII)


class TenantConfigError(ValueError):
    """The entry is not a TenantConfig v2 that may be trusted."""


class Status(StrEnum):
    """How a request for the host is answered."""

    PROVISIONING = "provisioning"  # 503 with Retry-After
    ACTIVE = "active"
    SUSPENDED = "suspended"  # 403
    MOVED = "moved"  # 308 to another host of the same tenant
    GONE = "gone"  # 404: a tombstone, kept so that a late write of an older epoch loses


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the tenant's database is, the ARN of the secret that opens it, and the ARN of the role as which
    that is read. `port`: 1 to 65535."""

    host: str
    port: int
    name: str
    secret: str
    role: str


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """One host's routing entry. `database` and `placement` are None unless `status` is active, `moved_to`
    unless it is moved: the tenant's host from now on, as `normalise_host` leaves it.

    `placement`: immutable and opaque, 2 to 63 of a-z, 0-9 and hyphens: what the session is tagged with that
    reads the secret. `issued_at`, `not_after`: whole seconds since 1970; what a registry of one's own says
    never expires.
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
    placement: str | None
    database: DatabaseAddress | None
    profile: Mapping[str, Any]
    moved_to: str | None = None
    issued_at: int = 0
    not_after: int = MAX_SECONDS

    def expired(self, now: float) -> bool:
        """`now`: seconds since 1970."""
        return self.not_after < now

    def to_payload(self) -> dict[str, Any]:
        database = self.database
        return {
            "v": VERSION,
            "host": self.host,
            "tenant_id": self.tenant_id,
            "slug": self.slug,
            "status": self.status.value,
            "epoch": self.epoch,
            "plan": self.plan,
            "pool_size": self.pool_size,
            "dedicated": self.dedicated,
            "release": self.release,
            "placement": self.placement,
            "database": None
            if database is None
            else {
                "host": database.host,
                "port": database.port,
                "name": database.name,
                "secret": database.secret,
                "role": database.role,
            },
            "profile": dict(self.profile),
            "moved_to": self.moved_to,
            "issued_at": self.issued_at,
            "not_after": self.not_after,
        }

    @classmethod
    def from_payload(cls, payload: Any) -> TenantConfig:
        """Raises TenantConfigError, naming the field, where something is missing or of the wrong kind."""
        if not isinstance(payload, dict):
            raise TenantConfigError("payload: expected an object")
        if payload.get("v") != VERSION:
            raise TenantConfigError(f"v: expected {VERSION}, got {payload.get('v')!r}")
        word = _field(payload, "status", str)
        try:
            status = Status(word)
        except ValueError as error:
            expected = ", ".join(member.value for member in Status)
            raise TenantConfigError(f"status: expected one of {expected}, got {word!r}") from error
        raw = payload.get("database")
        placement = database = None
        if raw is not None:
            if not isinstance(raw, dict):
                raise TenantConfigError("database: expected an object or null")
            placement = _placement(payload)
            database = DatabaseAddress(
                host=_field(raw, "host", str, within="database."),
                port=_number(raw, "port", 1, 65535, within="database."),
                name=_field(raw, "name", str, within="database."),
                secret=_secret(raw, placement),
                role=_role(raw),
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
            placement=placement,
            database=database,
            profile=_field(payload, "profile", dict),
            moved_to=_moved_to(payload, host) if status is Status.MOVED else None,
            issued_at=_number(payload, "issued_at", 0, MAX_SECONDS),
            not_after=_number(payload, "not_after", 0, MAX_SECONDS),
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


def _placement(payload: dict[str, Any]) -> str:
    key: str = _field(payload, "placement", str)
    if not _PLACEMENT.fullmatch(key):
        raise TenantConfigError(f"placement: expected 2 to 63 of a-z, 0-9 and hyphens, got {key[:80]!r}")
    return key


def _role(database: dict[str, Any]) -> str:
    role: str = _field(database, "role", str, within="database.")
    if not _ROLE.fullmatch(role):
        raise TenantConfigError(f"database.role: expected the ARN of an IAM role, got {role[:80]!r}")
    return role


def _secret(database: dict[str, Any], placement: str) -> str:
    """A part of a secret's name is the id of its placement: `placements/p-x/app`."""
    secret: str = _field(database, "secret", str, within="database.")
    match = _SECRET.fullmatch(secret)
    if match is None:
        raise TenantConfigError(f"database.secret: expected the ARN of a secret, got {secret[:80]!r}")
    if placement not in match[1].split("/"):
        raise TenantConfigError(
            f"database.secret: expected one of placement {placement}, got {match[1][:80]!r}"
        )
    return secret


def _number(payload: dict[str, Any], name: str, least: int, most: int, *, within: str = "") -> int:
    value = payload.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        got = repr(value) if isinstance(value, int) else type(value).__name__
        raise TenantConfigError(f"{within}{name}: expected an integer from {least} to {most}, got {got}")
    return value


def cache_key(host: str) -> str:
    """The Redis key of a normalised host."""
    return KEY_PREFIX + host


def undated(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload as it was decided, without what issuing it adds."""
    return {name: value for name, value in payload.items() if name not in ("issued_at", "not_after")}


def issued(payload: Mapping[str, Any], *, at: float) -> dict[str, Any]:
    """The payload as it is to be signed now. `at`: seconds since 1970."""
    now = int(at)
    return {**payload, "issued_at": now, "not_after": now + LIFETIME_SECONDS}


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
    """The payload of an entry found under `host`. Raises TenantConfigError."""
    text = entry.decode("ascii", "replace") if isinstance(entry, bytes) else entry
    if len(text) > MAX_ENTRY_BYTES:
        raise TenantConfigError(f"entry: longer than {MAX_ENTRY_BYTES} bytes")
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != FORMAT:
        raise TenantConfigError(f"entry: expected {FORMAT}.<key id>.<payload>.<signature>")
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

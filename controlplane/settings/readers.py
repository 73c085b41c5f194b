"""How the text of one environment variable is read: a typed value, or what was expected.

Each function returns a reader. A reader raises `InvalidValue` with what was expected and never quotes the
text, which may be a secret; `controlplane/settings/__init__.py` adds the variable's name, and the text where
it is none. Nothing here reads the environment.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import normalise_host

T = TypeVar("T")
Reader = Callable[[str], T]

API_ROLES = ("operator", "viewer", "dataplane")
LEAST_KEY_BYTES = 32
LEAST_TOKEN = 22  # characters: 128 bits in base64
AUTHORITIES = (
    "a PEM file of certificate authorities (for RDS: download "
    "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem, put it into the worker's image, for "
    "example as /etc/ssl/certs/global-bundle.pem, and name that path here)"
)
SYSTEM_AUTHORITIES = Path("system")
"""What libpq calls the authorities of the operating system; RDS's is none of them."""
_KEY_ID = re.compile(r"^[A-Za-z0-9_-]{1,32}\Z")
_TOKEN_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
_MAX_ITEMS = 64


class InvalidValue(ValueError):
    """The text is not what was expected; the message says what that is."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """`name` stands in the audit trail; `role` is one of API_ROLES."""

    name: str
    role: str
    token: str = field(repr=False)


def text(pattern: str, expected: str) -> Reader[str]:
    """Text that matches the whole pattern."""
    compiled = re.compile(pattern)

    def read(value: str) -> str:
        if not compiled.fullmatch(value):
            raise InvalidValue(expected)
        return value

    return read


def listed(read_one: Reader[T], *, least: int, most: int, of: str) -> Reader[tuple[T, ...]]:
    """Values between commas, each once."""

    def read(value: str) -> tuple[T, ...]:
        parts = [part.strip() for part in value.split(",", most + 1)]
        if not least <= len(parts) <= most or len(set(parts)) < len(parts):
            span = f"{least} to {most}" if least < most else f"{least}"
            raise InvalidValue(f"{span} different {of} between commas")
        return tuple(read_one(part) for part in parts)

    return read


def seconds(least: float, most: float) -> Reader[float]:
    def read(value: str) -> float:
        expected = f"seconds, {least:g} to {most:g}"
        try:
            number = float(value)
        except ValueError as error:
            raise InvalidValue(expected) from error
        if not least <= number <= most:
            raise InvalidValue(expected)
        return number

    return read


def whole(least: int, most: int) -> Reader[int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise InvalidValue(f"a whole number, {least} to {most}")
        return int(value)

    return read


def text_list(pattern: str, of: str, *, least: int, most: int) -> Reader[tuple[str, ...]]:
    return listed(text(pattern, of), least=least, most=most, of=of)


environment_name = text(r"[a-z][a-z0-9-]{0,30}", "a name of a-z, 0-9 and hyphens, a letter first")
stripe_api_key = text(r"[sr]k_(test|live)_[A-Za-z0-9_]{1,250}", "a secret or restricted key (sk_… or rk_…)")
stripe_signing_secrets = text_list(r"whsec_[!-~]{1,250}", "signing secrets (whsec_…)", least=1, most=2)
cloudflare_token = text(r"[!-~]{20,250}", "an API token of 20 characters or more")
cloudflare_zone_id = text(r"[0-9a-f]{32}", "32 hexadecimal digits")
aws_region = text(r"[a-z]{2}(-[a-z]+)+-[0-9]", "an AWS region")
s3_bucket = text(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of an S3 bucket")
vpc_id = text(r"vpc-[0-9a-f]{8,17}", "a VPC (vpc-…)")
# Two at least, because an Aurora cluster asks for two availability zones.
subnet_ids = text_list(r"subnet-[0-9a-f]{8,17}", "subnets (subnet-…)", least=2, most=16)
security_group_ids = text_list(r"sg-[0-9a-f]{8,17}", "security groups (sg-…)", least=1, most=16)
iam_policy = text(r"arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[!-~]{1,512}", "the ARN of an IAM policy")
iam_role = text(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,512}", "the ARN of an IAM role")
program = text(r"[^\0\n]{1,4096}", "a program")
sslmode = text(
    r"disable|allow|prefer|require|verify-ca|verify-full",
    "disable, allow, prefer, require, verify-ca or verify-full",
)


def boolean(value: str) -> bool:
    if value not in {"true", "false"}:
        raise InvalidValue("true or false")
    return value == "true"


def zone(value: str) -> str:
    try:
        return normalise_host(value)
    except Invalid as error:
        raise InvalidValue(error.expected) from error


def absolute_path(value: str) -> Path:
    path = Path(value)
    if not path.is_absolute() or "\0" in value:
        raise InvalidValue("an absolute path")
    return path


def existing_file(value: str) -> Path:
    path = Path(value)
    if not path.is_file():
        raise InvalidValue("a file that exists")
    return path


def existing_folder(value: str) -> Path:
    path = Path(value)
    if not path.is_dir():
        raise InvalidValue("a folder that exists")
    return path


def authorities(value: str) -> Path:
    """libpq's `sslrootcert`: a file with at least one certificate that can be read, or `system`."""
    if Path(value) == SYSTEM_AUTHORITIES:
        return SYSTEM_AUTHORITIES
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except ssl.SSLError as error:
        raise InvalidValue(f"{AUTHORITIES}; it holds no PEM certificates") from error
    except OSError as error:
        raise InvalidValue(f"{AUTHORITIES}; {error.strerror}") from error
    except ValueError as error:  # a null byte in its name
        raise InvalidValue(f"{AUTHORITIES}; {error}") from error
    return Path(value)


def postgresql_url(value: str) -> str:
    expected = "postgresql://[user[:password]@]host[:port]/database"
    parameters = _connection_parameters(value) if value.startswith(("postgresql://", "postgres://")) else {}
    if not parameters.get("host") or not parameters.get("dbname"):
        raise InvalidValue(expected)
    return value


def _connection_parameters(url: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return {}  # raised anew by the caller: libpq's message may hold the password


def redis_url(value: str) -> str:
    expected = "redis://[[user]:password@]host[:port][/number], or rediss://"
    parts = _split(value)
    if (
        parts is None
        or parts.scheme not in {"redis", "rediss"}
        or not re.fullmatch(r"/?[0-9]{0,4}", parts.path)
    ):
        raise InvalidValue(expected)
    return value


def api_base(value: str) -> str:
    """The base URL of an HTTP API that is sent a key: https, or http on this machine."""
    expected = "https://host[:port][/path], or http:// on loopback"
    parts = _split(value)
    if parts is None or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidValue(expected)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise InvalidValue(expected)
    return value.rstrip("/")


def _split(url: str) -> SplitResult | None:
    """None where it is no URL with a host; urllib's own message may hold the password."""
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if well_formed and not re.search(r"\s", url) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def signing_key(value: str) -> tuple[str, bytes]:
    """`<id>:<base64>`."""
    key_id, colon, encoded = value.partition(":")
    expected = f"<id>:<base64 of {LEAST_KEY_BYTES} bytes or more>"
    if not colon or not _KEY_ID.match(key_id):
        raise InvalidValue(expected)
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidValue(f"{expected} for {key_id}") from error
    if len(key) < LEAST_KEY_BYTES:
        raise InvalidValue(f"{expected} for {key_id}")
    return key_id, key


def signing_keys(value: str) -> tuple[tuple[str, bytes], ...]:
    keys = listed(signing_key, least=1, most=8, of="keys")(value)
    if len(dict(keys)) < len(keys):
        raise InvalidValue("each key id once")
    return keys


def certificate_key(value: str) -> tuple[str, bytes]:
    """`<id>:<base64>` of an Ed25519 seed."""
    key_id, seed = signing_key(value)
    if len(seed) != LEAST_KEY_BYTES:
        raise InvalidValue(f"<id>:<base64 of {LEAST_KEY_BYTES} bytes>")
    return key_id, seed


def notification_secret(value: str) -> bytes:
    """`whsec_<base64>`, as the Standard Webhooks specification writes them: 24 to 64 bytes."""
    expected = "whsec_<base64 of 24 to 64 bytes>"
    prefix, encoded = value[:6], value[6:]
    try:
        secret = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidValue(expected) from error
    if prefix != "whsec_" or not 24 <= len(secret) <= 64:
        raise InvalidValue(expected)
    return secret


notification_secrets = listed(notification_secret, least=1, most=4, of="secrets")


def api_token(value: str) -> ApiToken:
    """`<name>:<role>:<token>`."""
    name, _, rest = value.partition(":")
    role, colon, token = rest.partition(":")
    if not colon or not _TOKEN_NAME.match(name):
        raise InvalidValue("<name>:<role>:<token>, the name of a-z, 0-9 and hyphens, a letter first")
    if role not in API_ROLES:
        raise InvalidValue(f"a role of {', '.join(API_ROLES)} for {name}")
    if not re.fullmatch(rf"[!-~]{{{LEAST_TOKEN},256}}", token):
        raise InvalidValue(f"a token of {LEAST_TOKEN} to 256 printable characters for {name}")
    return ApiToken(name, role, token)


def api_tokens(value: str) -> tuple[ApiToken, ...]:
    tokens = listed(api_token, least=1, most=_MAX_ITEMS, of="tokens")(value)
    for what, values in (("name", [t.name for t in tokens]), ("token", [t.token for t in tokens])):
        if len(set(values)) < len(values):
            raise InvalidValue(f"each {what} once")
    return tokens

"""The envelope of a deletion certificate: canonical JSON under an Ed25519 signature (ADR 7).

    {"certificate": {…}, "signature": {"algorithm": "ed25519", "key": "<id>", "public_key": …, "value": …}}

Whoever holds the public key can check a certificate, and cannot make one; the customer it was given to,
years later and without us, is who it is for. The public key stands in the envelope for convenience; what a
reader trusts is the one that was published.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "ed25519"
PUBLIC_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class CertificateKey:
    """`seed`: RFC 8032's private key, 32 bytes."""

    key_id: str
    seed: bytes = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def canonical(document: dict[str, Any]) -> bytes:
    """The bytes that are signed: JSON, keys in order, no spaces, ASCII."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def issue(document: dict[str, Any], key: CertificateKey | None) -> dict[str, Any]:
    """The envelope; without a key its signature is null, and it proves nothing to anybody else."""
    signature = None
    if key is not None:
        signature = {
            "algorithm": ALGORITHM,
            "key": key.key_id,
            "public_key": _text(key.public_key),
            "value": _text(key.sign(canonical(document))),
        }
    return {"certificate": document, "signature": signature}


def fault(envelope: dict[str, Any], trusted: bytes) -> str | None:
    """Why the certificate does not hold under this public key; None where it does."""
    document, signature = envelope.get("certificate"), envelope.get("signature")
    if not isinstance(document, dict):
        return "certificate: expected an object"
    if not isinstance(signature, dict):
        return "signature: there is none"
    if signature.get("algorithm") != ALGORITHM:
        return f"signature.algorithm: expected {ALGORITHM}"
    try:
        value = base64.b64decode(str(signature.get("value")), validate=True)
    except binascii.Error:
        return "signature.value: expected base64"
    try:
        Ed25519PublicKey.from_public_bytes(trusted).verify(value, canonical(document))
    except InvalidSignature:
        return "signature: it is not of this document under this key"
    return None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

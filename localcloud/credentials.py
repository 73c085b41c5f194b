"""Secrets of one local cloud, drawn anew at each start: nothing that leaks from a demo opens another."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

SIGNING_KEY_BYTES = 32


def _token() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    registry_admin_password: str = field(default_factory=_token)
    registry_password: str = field(default_factory=_token)
    stripe_api_key: str = field(default_factory=lambda: f"sk_test_{secrets.token_hex(24)}")
    cloudflare_token: str = field(default_factory=_token)
    cloudflare_zone_id: str = field(default_factory=lambda: secrets.token_hex(16))
    operator_token: str = field(default_factory=_token)
    second_operator_token: str = field(default_factory=_token)  # a purge takes two persons
    viewer_token: str = field(default_factory=_token)
    signing_key: bytes = field(default_factory=lambda: secrets.token_bytes(SIGNING_KEY_BYTES))

    certificate_seed: bytes = field(default_factory=lambda: secrets.token_bytes(SIGNING_KEY_BYTES))

    @property
    def certificate_key(self) -> str:
        """As settings read it: `<key id>:<base64>`."""
        return f"c1:{base64.b64encode(self.certificate_seed).decode()}"

    @property
    def signing_keys(self) -> str:
        """As settings read them: `<key id>:<base64>`."""
        return f"k1:{base64.b64encode(self.signing_key).decode()}"

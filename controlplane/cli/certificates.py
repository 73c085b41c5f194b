"""`controlplane certificate`: needs nothing but the file and the public key."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

import click

from controlplane.certificate import PUBLIC_KEY_BYTES, CertificateKey, fault
from controlplane.cli import show
from controlplane.cli.failure import Failure, Misuse, clear_errors
from controlplane.settings import CertificateSettings

MAX_BYTES = 4 * 1024 * 1024


@click.group("certificate")
def certificate() -> None:
    """Deletion certificates: check one, show the key to check them with."""


@certificate.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", required=True, metavar="BASE64", help="The public key that you trust.")
def check(*, file: Path, key: str) -> None:
    """Verify the signature of the certificate in FILE, as `tenants certificate --json` prints it."""
    try:
        trusted = base64.b64decode(key, validate=True)
    except binascii.Error as error:
        raise Misuse("--key: expected base64") from error
    if len(trusted) != PUBLIC_KEY_BYTES:
        raise Misuse(f"--key: expected {PUBLIC_KEY_BYTES} bytes in base64, got {len(trusted)}")
    try:
        with file.open("rb") as opened:
            envelope = json.loads(opened.read(MAX_BYTES))
    except OSError as error:
        raise Misuse(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Misuse(f"{file}: expected JSON") from error
    if not isinstance(envelope, dict):
        raise Misuse(f"{file}: expected a JSON object")
    wrong = fault(envelope, trusted)
    if wrong is not None:
        raise Failure(f"{file}: {wrong}")
    show.line(f"{file}: good, of tenant {envelope['certificate'].get('tenant', {}).get('id')}")


@certificate.command()
def key() -> None:
    """Print the public key that belongs to CONTROLPLANE_CERTIFICATE_KEY."""
    with clear_errors():
        settings = CertificateSettings.from_environment()
    if settings.certificate_key is None:
        raise Misuse("CONTROLPLANE_CERTIFICATE_KEY: expected to be set")
    made = CertificateKey(*settings.certificate_key)
    show.line(f"{made.key_id} {base64.b64encode(made.public_key).decode()}")

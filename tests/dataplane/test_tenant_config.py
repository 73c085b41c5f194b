"""The routing entry: every case of the vectors that Python and TypeScript share."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dataplane.tenant_config import (
    REISSUE_SECONDS,
    TenantConfig,
    TenantConfigError,
    issued,
    sign,
    verify,
)
from tests.vectors import make_tenant_config

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tenant_config.json").read_text())
KEYS = {name: base64.b64decode(key) for name, key in VECTORS["keys"].items()}


def test_vectors_are_what_their_module_writes() -> None:
    assert make_tenant_config.PATH.read_text() == make_tenant_config.render()


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(TenantConfigError) as caught:
            TenantConfig.from_payload(verify(case["entry"], host=case["host"], keys=KEYS))
        assert str(caught.value).split(":")[0] == case["error"]
    else:
        payload = verify(case["entry"].encode(), host=case["host"], keys=KEYS)
        assert payload == case["payload"]
        known = {name: value for name, value in payload.items() if name != "later"}
        if payload["database"] is None:
            known["placement"] = None
        config = TenantConfig.from_payload(payload)
        assert config.to_payload() == {"moved_to": None, **known}
        assert config.expired(VECTORS["now"]) is case["expired"]


def test_signing_refuses_what_no_reader_would_take() -> None:
    payload = make_tenant_config.config().to_payload()
    with pytest.raises(TenantConfigError, match=r"^key: expected at least 32 bytes, got 5"):
        sign(payload, key_id="k1", key=b"short")
    with pytest.raises(TenantConfigError, match=r"^entry: longer than"):
        sign(payload | {"profile": {"text": "x" * 20_000}}, key_id="k1", key=KEYS["k1"])


def test_an_entry_shows_no_secret_of_the_database() -> None:
    """I9: the entry names where the secret is, never what it is."""
    database = make_tenant_config.config().to_payload()["database"]
    assert set(database) == {"host", "port", "name", "secret", "role"}


def test_an_entry_is_issued_for_thirty_days_and_anew_when_ten_are_left() -> None:
    payload = make_tenant_config.config().to_payload()
    assert issued(payload, at=1_000_000.9) == payload | {"issued_at": 1_000_000, "not_after": 3_592_000}
    assert REISSUE_SECONDS == 864_000

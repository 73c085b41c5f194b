"""Cloudflare for SaaS through its official SDK: a tenant's custom domain and its certificate.

Creating only begins it. Validation records appear after a while, the customer places them, and the
hostname and its certificate become active independently; so a caller creates (or adopts), then looks
with `find` until `HostnameDescription.ready`.

Whose a hostname is stands in its custom metadata as `tenant_id`. That a CNAME points at us proves
nothing about which tenant owns the domain, so a hostname without our mark, or with another tenant's,
is never adopted. Custom metadata is a feature of the plan: without it Cloudflare refuses the creation
(403, code 1413), which surfaces as NeedsHuman("cloudflare-custom-metadata"); there is no mode without.

Traps of the SDK (5.9) that this file works around: it retries a 409 twice, so a duplicate would cost
three POSTs (`max_retries=0`, the engine's backoff is the one retry loop); it honours a Retry-After
only up to 60 s where Cloudflare asks for 300; it returns None for an answer of 200 with `success:
false` (envelopes are read here); its auto-paging goes on until an empty page (one page is asked for);
and it picks up further credentials from the environment, which are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import cloudflare
import httpx
from cloudflare import Cloudflare

from controlplane.domain.errors import Conflict, Invalid, NeedsHuman, NotFound, Refused, Retryable
from controlplane.workers.providers import retry_after
from controlplane.workers.providers.ports import HostnameDescription, ValidationRecord

BASE_URL = "https://api.cloudflare.com/client/v4"
OWNER = "tenant_id"
PER_PAGE, PAGES = 50, 2000
DUPLICATE, GONE = 1406, 1436
# Cloudflare's page "Status codes: Custom hostnames".
REFUSED_HOSTS = {
    1407: "it is not a valid host name",
    1408: "it has characters outside ASCII",
    1409: "its top-level domain is reserved",
    1410: "it is not below a public suffix",
    1411: "names below example.com, example.net and example.org are not allowed",
    1448: "wildcards are not supported",
}
RUNBOOKS = {
    1404: "cloudflare-quota",
    1405: "cloudflare-quota",
    1413: "cloudflare-custom-metadata",
    1414: "cloudflare-custom-origin",
    1421: "cloudflare-custom-origin",
}
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_TOKEN = re.compile(r"[!-~]{8,512}")


class CloudflareHostnames:
    """Implements `ports.CustomHostnames` for one zone.

    Every method raises Retryable (429 with `after` from Retry-After, 5xx, network, timeout, 200 with
    `success: false`), NeedsHuman("cloudflare-credentials") (401, 403, unknown zone),
    NeedsHuman("cloudflare-quota" | "cloudflare-custom-metadata" | "cloudflare-custom-origin") or
    NeedsHuman("cloudflare-refusal") (any other 4xx). No message holds the token.
    """

    def __init__(
        self,
        api_token: str,
        zone_id: str,
        base_url: str = "",
        *,
        origin: str = "",
        method: Literal["http", "txt"] = "http",
        timeout: float = 15.0,
    ) -> None:
        """`base_url`: empty for Cloudflare itself. `origin`: a custom origin server (a feature of the
        plan); empty sends traffic to the zone's fallback origin. `method`: how certificates are
        validated; "http" renews by itself once the domain points at us, "txt" can be done before it
        does. `timeout`: seconds for one call. Raises Invalid."""
        if not _TOKEN.fullmatch(api_token):
            # An HTTP library would quote a malformed token in its error.
            raise Invalid("api_token", "a Cloudflare API token: printable ASCII without spaces")
        if not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", zone_id):
            raise Invalid("zone_id", "a Cloudflare zone id", got=zone_id[:70])
        self._zone = zone_id
        self._origin = origin
        self._ssl: Any = {"method": method, "type": "dv", "settings": {"min_tls_version": "1.2"}}
        client = Cloudflare(
            api_token=api_token,
            base_url=base_url or BASE_URL,
            max_retries=0,
            timeout=httpx.Timeout(timeout),
        )
        client.api_key = client.api_email = client.user_service_key = None
        self._hostnames = client.custom_hostnames.with_raw_response
        self._quota = client.custom_hostnames.quota.with_raw_response

    def find(self, host: str) -> HostnameDescription | None:
        wanted = host.lower()
        found = self._call(
            f"look up {wanted}",
            lambda: self._hostnames.list(zone_id=self._zone, hostname={"exact": wanted}, per_page=5),
        )
        return next((_observed(item) for item in found or () if item["hostname"] == wanted), None)

    def list(self) -> Iterator[HostnameDescription]:
        """A page that is not full is the last one. At most PAGES of them, then NeedsHuman."""
        for page in range(1, PAGES + 1):
            listed = partial(self._hostnames.list, zone_id=self._zone, page=page, per_page=PER_PAGE)
            found = self._call(f"list page {page}", listed) or ()
            yield from (_observed(item) for item in found)
            if len(found) < PER_PAGE:
                return
        raise NeedsHuman(f"the zone has more than {PAGES * PER_PAGE} hostnames", runbook="cloudflare-refusal")

    def create(self, host: str, tenant_id: str) -> HostnameDescription:
        """One POST; on a duplicate, what is there is adopted where its metadata names this tenant.

        Raises besides: NeedsHuman("hostname-conflict") for one that is not ours, Refused for a host
        that Cloudflare will not take."""
        wanted = host.lower()
        extra: dict[str, Any] = {"custom_origin_server": self._origin} if self._origin else {}
        try:
            made = self._call(
                f"create {wanted}",
                lambda: self._hostnames.create(
                    zone_id=self._zone,
                    hostname=wanted,
                    ssl=self._ssl,
                    custom_metadata={OWNER: tenant_id},
                    **extra,
                ),
            )
        except Conflict as conflict:
            return self._adopt(wanted, tenant_id, conflict)
        return _observed(made)

    def delete(self, hostname_id: str) -> None:
        _check_id(hostname_id)
        try:
            self._call(
                f"delete {hostname_id}", lambda: self._hostnames.delete(hostname_id, zone_id=self._zone)
            )
        except NotFound:
            return

    def quota_left(self) -> int:
        """How many more hostnames the zone takes."""
        found = self._call("read the quota", lambda: self._quota.get(zone_id=self._zone))
        return max(0, int(found["hard_cap"]) - int(found["used"]))

    def _adopt(self, host: str, tenant_id: str, conflict: Conflict) -> HostnameDescription:
        observed = self.find(host)
        if observed is None:
            # Listings lag behind writes; the next pass looks again, its attempts are counted.
            raise Retryable(f"Cloudflare has {host} but does not list it yet") from conflict
        if observed.tenant_id != tenant_id:
            owner = "another tenant's" if observed.tenant_id else "not ours"
            raise NeedsHuman(f"{host} exists in the zone and is {owner}", runbook="hostname-conflict")
        return observed

    def _call(self, what: str, send: Callable[[], Any]) -> Any:
        """The `result` of one call. DELETE answers without an envelope, so an answer counts as failed
        only where it says so."""
        try:
            answer: httpx.Response = send().http_response
            body = answer.json()
        except cloudflare.APIStatusError as error:
            after = retry_after.seconds(error.response.headers)
            raise _meaning(what, error.status_code, _codes(error.body), after) from error
        except cloudflare.APIConnectionError as error:
            raise Retryable(f"Cloudflare can't be reached (to {what})") from error
        except ValueError as error:
            raise Retryable(f"Cloudflare answered no JSON (to {what})") from error
        if not isinstance(body, dict) or body.get("success") is False:
            raise _meaning(what, answer.status_code, _codes(body), None)
        return body.get("result")


def _check_id(hostname_id: str) -> None:
    """An empty id would turn a call about one hostname into one about all."""
    if not _ID.fullmatch(hostname_id):
        raise Invalid("hostname_id", "a custom hostname's id", got=hostname_id[:60])


def _codes(body: object) -> list[int]:
    errors = body.get("errors") if isinstance(body, dict) else None
    if not isinstance(errors, list):
        return []
    return [
        error["code"] for error in errors if isinstance(error, dict) and isinstance(error.get("code"), int)
    ]


def _meaning(what: str, status: int, codes: list[int], after: float | None) -> Exception:
    """Who acts next. Messages are our own and hold nothing that was sent."""
    trace = f"to {what}: HTTP {status}, codes {', '.join(map(str, codes)) or 'none'}"
    known = next((error for code in codes if (error := _known(code, trace)) is not None), None)
    if known is not None:
        return known
    if status in (401, 403, 404):
        return NeedsHuman(f"Cloudflare refuses our token or zone ({trace})", runbook="cloudflare-credentials")
    if status < 300 or status in (408, 409, 429) or status >= 500:
        return Retryable(f"Cloudflare failed ({trace})", after=after)
    return NeedsHuman(f"Cloudflare refuses the request ({trace})", runbook="cloudflare-refusal")


def _known(code: int, trace: str) -> Exception | None:
    """What one of the codes that have a meaning of their own says."""
    if code == DUPLICATE:
        return Conflict(f"Cloudflare has this custom hostname already ({trace})")
    if code == GONE:
        return NotFound(f"Cloudflare knows no such custom hostname ({trace})")
    if code in REFUSED_HOSTS:
        return Refused(f"Cloudflare will not take the host, {REFUSED_HOSTS[code]} ({trace})")
    if code in RUNBOOKS:
        return NeedsHuman(f"Cloudflare refuses ({trace})", runbook=RUNBOOKS[code])
    return None


def _observed(item: Any) -> HostnameDescription:
    """A custom hostname as Cloudflare shows it; fields it leaves out are empty."""
    ssl = item.get("ssl") or {}
    errors = [str(message) for message in item.get("verification_errors") or ()]
    errors += [str(error.get("message", "")) for error in ssl.get("validation_errors") or ()]
    return HostnameDescription(
        id=item["id"],
        host=item["hostname"],
        tenant_id=(item.get("custom_metadata") or {}).get(OWNER),
        status=item.get("status", "pending"),
        ssl_status=ssl.get("status", "initializing"),
        records=tuple(_records(item, ssl)),
        errors=tuple(errors),
    )


def _records(item: Any, ssl: Any) -> list[ValidationRecord]:
    """What the customer must place: first for the hostname, then for its certificate."""
    records = []
    ownership = item.get("ownership_verification")
    if ownership:
        records.append(ValidationRecord(ownership["type"], ownership["name"], ownership["value"]))
    for record in ssl.get("validation_records") or ():
        if record.get("txt_name"):
            records.append(ValidationRecord("txt", record["txt_name"], record["txt_value"]))
        if record.get("http_url"):
            records.append(ValidationRecord("http", record["http_url"], record["http_body"]))
        if record.get("cname"):
            records.append(ValidationRecord("cname", record["cname"], record["cname_target"]))
    return records

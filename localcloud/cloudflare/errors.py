"""Refusals with Cloudflare's error codes, in its envelope.

Codes, statuses and meanings after Cloudflare's page "Status codes: Custom hostnames".
"""

from __future__ import annotations

from typing import Any

CODES: dict[int, tuple[int, str]] = {
    1400: (400, "Unable to decode the JSON request body. Check your input and try again."),
    1401: (400, "Unable to encode the Custom Metadata as JSON. Check your input and try again."),
    1403: (400, "The request has no Authorization header. Check your input and try again."),
    1404: (403, "No quota has been allocated for this zone."),
    1405: (403, "Quota exceeded."),
    1406: (409, "Duplicate custom hostname found."),
    1407: (400, "Invalid custom hostname. Check your input and try again."),
    1408: (400, "Custom hostnames with non-ASCII characters are not supported."),
    1409: (
        400,
        "Reserved top domain custom hostnames, such as 'test', 'example', 'invalid' or 'localhost', is "
        "not supported.",
    ),
    1410: (400, "Unable to parse custom hostname - publicsuffix: cannot derive eTLD+1."),
    1411: (400, "Custom hostnames ending in example.com, example.net, or example.org are prohibited."),
    1413: (403, "No custom metadata access has been allocated for this zone."),
    1414: (403, "Access to setting a custom origin server has not been granted for this zone."),
    1421: (
        400,
        "The custom origin hostname you specified does not exist on Cloudflare as a DNS record in your zone.",
    ),
    1422: (400, "Invalid `http2` setting. Only 'on' or 'off' is accepted."),
    1424: (400, "Invalid `tls_1_3` setting. Only 'on' or 'off' is accepted."),
    1425: (400, "Invalid `min_tls_version` setting. Only '1.0','1.1','1.2' or '1.3' is accepted."),
    1432: (400, "The validation method is not supported. Only `http`, `email`, or `txt` are accepted."),
    1433: (400, "The validation type is not supported. Only 'dv' is accepted."),
    1434: (400, "The SSL attribute is invalid. Refer to the API documentation."),
    1435: (400, "The custom hostname ID is invalid. Check your input and try again."),
    1436: (404, "The custom hostname was not found."),
    1438: (400, "Cannot specify other filter parameters in addition to `id`."),
    1440: (400, "Both validation type and validation method are required."),
    1448: (400, "Custom hostnames with wildcards are not supported for certificates managed by Cloudflare."),
    1449: (400, "The request input `bundle_method` must be one of: ubiquitous, optimal, force."),
    1500: (500, "Internal Server Error"),
    7003: (404, "Could not route to the requested path, perhaps your object identifier is invalid?"),
    9109: (403, "Unauthorized to access requested resource"),
    10000: (401, "Authentication error"),
    10100: (429, "Too many requests reached. Please wait and consider throttling your request speed"),
}


class CloudflareError(Exception):
    """An answer other than success."""

    def __init__(self, code: int, detail: str = "") -> None:
        self.status, message = CODES[code]
        super().__init__(f"{message} {detail}".strip())
        self.code = code


def failure(code: int, message: str) -> dict[str, Any]:
    """The envelope of a refusal."""
    return {
        "success": False,
        "errors": [{"code": code, "message": message}],
        "messages": [],
        "result": None,
    }


def success(result: Any, **more: Any) -> dict[str, Any]:
    return {"result": result, "success": True, "errors": [], "messages": [], **more}

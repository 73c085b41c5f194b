"""What a visitor sees when the request can't be taken to its tenant: a page, or JSON for programs.

Nothing of the request is echoed, and nothing inside is named.
"""

from __future__ import annotations

import json
import math
from html import escape

from dataplane.errors import DataPlaneError

Headers = list[tuple[str, str]]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">{refresh}
<title>{title}</title>
<style>
body {{ font: 17px/1.6 system-ui, sans-serif; max-width: 34em; margin: 18vh auto 0; padding: 0 1.5em;
  color: #1c2430; background: #fff; }}
h1 {{ font-size: 1.5em; margin: 0 0 .4em; }}
small {{ color: #5b6675; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6e9ee; background: #14181f; }}
  small {{ color: #98a3b3; }}
}}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{explanation}</p>
<small>{status} {code}</small>
</main>
</body>
</html>
"""


def answer(
    error: DataPlaneError, accept: str | None = None, *, location: str | None = None
) -> tuple[int, Headers, bytes]:
    """(status, headers, body). JSON (`{"error", "message", "retry_after"}`) where `accept` prefers it
    to HTML; a page that reloads itself where waiting helps. `location`: where a host that has moved leads."""
    wait = None if error.retry_after is None else max(1, math.ceil(error.retry_after))
    headers: Headers = [("Cache-Control", "no-store"), ("Vary", "Accept")]
    if wait is not None:
        headers.append(("Retry-After", str(wait)))
    if location is not None:
        headers.append(("Location", location))
    if wants_json(accept):
        document = {"error": error.code, "message": error.explanation, "retry_after": wait}
        body, kind = json.dumps(document).encode() + b"\n", "application/json"
    else:
        refresh = "" if wait is None else f'\n<meta http-equiv="refresh" content="{wait}">'
        page = _PAGE.format(
            title=escape(error.title),
            explanation=escape(error.explanation),
            refresh=refresh,
            status=error.status,
            code=error.code,
        )
        body, kind = page.encode(), "text/html; charset=utf-8"
    headers += [("Content-Type", kind), ("Content-Length", str(len(body)))]
    return error.status, headers, body


def wants_json(accept: str | None) -> bool:
    """Is JSON named in the Accept header, and HTML not before it?"""
    if not accept:
        return False
    accept = accept.lower()
    json_at, html_at = accept.find("json"), accept.find("text/html")
    return json_at >= 0 and (html_at < 0 or json_at < html_at)

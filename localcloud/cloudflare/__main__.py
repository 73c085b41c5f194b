"""`python -m controlplane.localcloud.cloudflare --port 12222 --zone-id Z`: run the fake server until stopped.

The API token that is let in comes from LOCALCLOUD_CLOUDFLARE_TOKEN: a command line is for all to see.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from controlplane.localcloud.cloudflare.server import make_app
from controlplane.localcloud.cloudflare.zone import Limits, Timings, Zone
from controlplane.localcloud.servers.fake_http.server import serve
from controlplane.localcloud.servers.fake_http.store import ObjectStore


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.localcloud.cloudflare",
        description="A stateful fake server for Cloudflare's custom hostnames on loopback.",
    )
    timings, limits = Timings(), Limits()
    parser.add_argument("--port", type=int, required=True, help="0: any free one, printed")
    parser.add_argument("--zone-id", required=True)
    parser.add_argument("--data-dir", type=Path, help="keep the hostnames here; without, in memory")
    parser.add_argument("--records-seconds", type=float, default=timings.records)
    parser.add_argument("--ownership-seconds", type=float, default=timings.ownership)
    parser.add_argument("--certificate-seconds", type=float, default=timings.certificate)
    parser.add_argument("--quota", type=int, default=1000, help="custom hostnames the zone may hold")
    parser.add_argument("--rate-limit", type=int, default=limits.requests)
    parser.add_argument("--rate-window", type=float, default=limits.window, help="seconds")
    parser.add_argument("--no-custom-metadata", action="store_true", help="a plan without it")
    parser.add_argument(
        "--custom-origin", action="append", help="a name of the zone; the plan then has custom origins"
    )
    parser.add_argument("--fallback-origin", default="fallback.saas.internal", help="empty: none")
    given = parser.parse_args(arguments)
    chosen = Timings(given.records_seconds, given.ownership_seconds, given.certificate_seconds)
    if not 0 <= chosen.records <= chosen.certificate or chosen.ownership < 0:
        parser.error("--records-seconds: expected 0 or more, and no more than --certificate-seconds")
    token = os.environ.get("LOCALCLOUD_CLOUDFLARE_TOKEN", "")
    if not token:
        parser.error("LOCALCLOUD_CLOUDFLARE_TOKEN: expected the API token that is let in")
    if given.quota < 0 or given.rate_limit < 1 or given.rate_window <= 0:
        parser.error("--quota, --rate-limit, --rate-window: expected numbers above zero")
    store = ObjectStore(given.data_dir / "cloudflare.sqlite" if given.data_dir else None)
    zone = Zone(
        id=given.zone_id,
        token=token,
        store=store,
        timings=chosen,
        limits=Limits(given.rate_limit, given.rate_window),
        quota=given.quota,
        metadata=not given.no_custom_metadata,
        origins=frozenset(given.custom_origin) if given.custom_origin else None,
        fallback_origin=given.fallback_origin,
    )
    serve(make_app(zone), name="cloudflare", port=given.port, close=store.close)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

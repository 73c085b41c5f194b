"""`python -m controlplane.localcloud`: run the external systems in the foreground until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

from controlplane.localcloud.cloud import DEFAULT_ZONE, LocalCloud, write_environment
from controlplane.localcloud.servers.process import ServiceError

DEFAULT_WEBHOOK_URL = "http://127.0.0.1:8000/webhooks/stripe"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.localcloud",
        description="Everything the control plane needs, on this machine",
    )
    parser.add_argument(
        "--data-dir", type=Path, help="an empty folder, or one of an earlier run; default: temporary"
    )
    parser.add_argument(
        "--env-file", type=Path, help="write the variables that lead to it here; holds secrets"
    )
    parser.add_argument("--zone", default=DEFAULT_ZONE, help="tenants answer at <slug>.<zone>")
    parser.add_argument("--webhook-url", default=DEFAULT_WEBHOOK_URL, help="where Stripe sends its events")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    try:
        with LocalCloud(options.data_dir, zone=options.zone) as cloud:
            cloud.deliver_webhooks_to(options.webhook_url)
            _show(cloud, time.monotonic() - began)
            if options.env_file:
                write_environment(options.env_file, cloud.environment())
            signal.pause()
    except ServiceError as error:
        sys.stderr.write(f"localcloud: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _show(cloud: LocalCloud, seconds: float) -> None:
    lines = {
        "registry": f"127.0.0.1:{cloud.registry.port}  PostgreSQL",
        "broker": f"{cloud.broker.url}  Valkey, noeviction",
        "cache": f"{cloud.cache.url}  Valkey, allkeys-lru",
        "aws": cloud.aws and cloud.aws.url,
        "stripe": cloud.stripe and cloud.stripe.url,
        "cloudflare": cloud.cloudflare and cloud.cloudflare.url,
        "data": cloud.data_dir,
    }
    for name, place in lines.items():
        sys.stdout.write(f"{name:<12}{place}\n")
    sys.stdout.write(f"ready after {seconds:.1f} s; Ctrl-C ends it\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

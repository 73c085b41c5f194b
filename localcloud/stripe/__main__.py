"""`python -m controlplane.localcloud.stripe --port 12111 [--data-dir DIR]`: run the fake server."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from controlplane.localcloud.servers.fake_http.server import serve
from controlplane.localcloud.servers.fake_http.store import ObjectStore
from controlplane.localcloud.stripe.account import Account, Settings
from controlplane.localcloud.stripe.delivery import Deliverer
from controlplane.localcloud.stripe.server import make_app
from controlplane.localcloud.stripe.versions import CURRENT, VERSION

KEY_VARIABLE = "LOCALCLOUD_STRIPE_API_KEY"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.localcloud.stripe",
        description=f"A stateful fake server for Stripe on loopback. With {KEY_VARIABLE} set, only that key "
        "is let in, else any test key (sk_test_…, rk_test_…).",
    )
    parser.add_argument("--port", type=int, required=True, help="0: any free one, printed")
    parser.add_argument("--data-dir", type=Path, help="keep the objects here; without, in memory")
    parser.add_argument("--api-version", default=CURRENT, help="the account's default (%(default)s)")
    parser.add_argument(
        "--retry-seconds", type=_seconds, help="waits between a webhook's attempts, comma separated"
    )
    parser.add_argument("--dunning-seconds", type=_seconds, help="waits between attempts to collect")
    parser.add_argument("--dunning-outcome", choices=("canceled", "unpaid", "past_due"), default="canceled")
    parser.add_argument("--delivery-threads", type=int, default=8)
    given = parser.parse_args(arguments)
    if not VERSION.match(given.api_version):
        parser.error(f"--api-version: expected YYYY-MM-DD or YYYY-MM-DD.name, got {given.api_version!r}")
    if not 1 <= given.delivery_threads <= 64:
        parser.error(f"--delivery-threads: expected 1 to 64, got {given.delivery_threads}")
    defaults = Settings()
    settings = Settings(
        api_version=given.api_version,
        api_key=os.environ.get(KEY_VARIABLE) or None,
        retry_seconds=given.retry_seconds or defaults.retry_seconds,
        dunning_seconds=given.dunning_seconds or defaults.dunning_seconds,
        dunning_outcome=given.dunning_outcome,
        delivery_threads=given.delivery_threads,
    )
    store = ObjectStore(given.data_dir / "stripe.sqlite" if given.data_dir else None)
    account = Account(store, settings)
    deliverer = Deliverer(account)
    deliverer.start()

    def close() -> None:
        deliverer.stop()
        store.close()

    serve(make_app(account), name="stripe", port=given.port, close=close)
    return 0


def _seconds(text: str) -> tuple[float, ...]:
    found = tuple(float(part) for part in text.split(","))
    if not all(0 <= seconds <= 1e8 for seconds in found):
        raise argparse.ArgumentTypeError("expected seconds from 0 to 100000000, comma separated")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m controlplane.localcloud.aws`: run the emulator in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path

from controlplane.localcloud.aws.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.localcloud.aws", description="AWS on this machine"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the clusters' data")
    parser.add_argument("--endpoint-map", type=Path, required=True, help="JSON file to keep up to date")
    options = parser.parse_args()
    serve(options.host, options.port, options.data_dir.resolve(), options.endpoint_map.resolve())


if __name__ == "__main__":
    main()

"""The emulator as a child process of ours, and what boto3 and Terraform need to find it."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.error import URLError

from localcloud.process import Child, ServiceError, free_port, spawn

REGION = "eu-central-1"
START_ATTEMPTS = 5


class AwsEmulator:
    """One emulated account on 127.0.0.1. `environment` adds to the process's own, e.g.
    {"LOCALCLOUD_RDS_CREATE_SECONDS": "3"}. A second start is a new, empty account."""

    def __init__(
        self, data_dir: Path, port: int = 0, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.endpoint_map = self.data_dir / "endpoints.json"
        self.port = port
        self._environment = dict(environment or {})
        self._child: Child | None = None

    def __enter__(self) -> AwsEmulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServiceError("aws: not started")
        return self._child.pid

    def environ(self) -> dict[str, str]:
        """Variables that boto3, the AWS CLI and Terraform's provider read."""
        return {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "localcloud",
            "AWS_SECRET_ACCESS_KEY": "localcloud",
            "AWS_ENDPOINT_URL": self.url,
        }

    def start(self) -> None:
        """Start and wait until it answers. Raises ServiceError."""
        if self.running:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        attempts = START_ATTEMPTS if self.port == 0 else 1
        for attempt in range(1, attempts + 1):
            port = self.port or free_port()
            command = [sys.executable, "-m", "localcloud.aws", "--port", str(port)]
            child = spawn(
                "aws",
                [*command, "--data-dir", self.data_dir, "--endpoint-map", self.endpoint_map],
                log=self.data_dir / "aws.log",
                env={**os.environ, **self._environment},
                cwd=Path(__file__).parents[2],
            )
            try:
                child.wait_until(partial(_answers, port))
            except ServiceError as error:
                if attempt < attempts and "in use" in str(error):
                    continue
                raise
            self.port, self._child = port, child
            return

    def stop(self) -> None:
        """Stop it and every database server behind it."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """What a power cut does."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_localcloud/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError, ConnectionError):
        return False

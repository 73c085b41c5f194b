"""The emulator as a child process of ours, and what boto3 and Terraform need to find it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from controlplane.localcloud.servers.http_service import HttpService
from controlplane.localcloud.servers.process import ServiceError

REGION = "eu-central-1"


class AwsEmulator(HttpService):
    """One emulated account. `environment` turns it, e.g. {"LOCALCLOUD_RDS_CREATE_SECONDS": "3"}.

    moto keeps its account in memory: a second start is a new, empty one.
    """

    def __init__(
        self, data_dir: Path, port: int = 0, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.endpoint_map = data_dir.resolve() / "endpoints.json"
        arguments = ("--endpoint-map", self.endpoint_map)
        super().__init__(
            "controlplane.localcloud.aws", data_dir, port, arguments=arguments, environment=environment
        )

    def start(self) -> None:
        if importlib.util.find_spec("moto") is None:
            raise ServiceError("AWS: install the extra `localcloud`")
        super().start()

    def environ(self) -> dict[str, str]:
        """Variables that boto3, the AWS CLI and Terraform's provider read."""
        return {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "localcloud",
            "AWS_SECRET_ACCESS_KEY": "localcloud",
            "AWS_ENDPOINT_URL": self.url,
        }

"""What DescribeDBClusters says of a cluster that nobody has changed."""

from __future__ import annotations

from typing import Any

from moto.rds.models import DBCluster

from controlplane.localcloud.aws.fidelity.patch import getter, put

DATA_API_ENGINES = {"aurora-postgresql", "aurora-mysql"}


def repair() -> None:
    _http_endpoint()
    _scaling_configuration()


def _http_endpoint() -> None:
    def set_enabled(self: Any, value: bool | None) -> None:
        """AWS: the Data API can be enabled on Serverless v2 and provisioned clusters (Aurora User
        Guide, "Using the Amazon RDS Data API"). moto: knows Serverless v1 only and answers false;
        every Terraform plan wants to enable it again."""
        self._enable_http_endpoint = bool(value) and self.engine in DATA_API_ENGINES

    is_enabled = getter(DBCluster, "enable_http_endpoint")
    put(DBCluster, "enable_http_endpoint", property(is_enabled, set_enabled))


def _scaling_configuration() -> None:
    of_all = getter(DBCluster, "scaling_configuration_info")

    def info(self: Any) -> dict[str, Any] | None:
        """AWS: ScalingConfigurationInfo belongs to Serverless v1, `engine_mode` "serverless" (API
        Reference, DBCluster). moto: sends an empty one for every cluster, which Terraform takes for
        a block to be removed, at every plan."""
        return of_all(self) if self.engine_mode == "serverless" else None

    put(DBCluster, "scaling_configuration_info", property(info))

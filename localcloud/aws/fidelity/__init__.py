"""Where moto 5.2.5 answers otherwise than AWS, and is made to answer like it.

One file for each service, one function for each difference; the docstring of the function says what
AWS does, where that is written down, and what moto does instead. Nothing else in the product knows
that there is an emulator. Tests in `tests/localcloud/test_aws_*.py` fail without each.
"""

from __future__ import annotations

from controlplane.localcloud.aws.databases import ClusterDatabases
from controlplane.localcloud.aws.fidelity import (
    autoscaling,
    cloudwatch,
    concurrency,
    iam,
    quotas,
    rds_clusters,
    rds_databases,
    rds_drift,
    rds_parameters,
    rds_passwords,
    rds_restore,
    secretsmanager,
    sts,
)
from controlplane.localcloud.aws.settings import EmulatorSettings


def repair(settings: EmulatorSettings, databases: ClusterDatabases) -> None:
    """Install everything, once in a process and before the first request.

    The order counts where two functions replace the same method: the later one runs first.
    """
    rds_passwords.repair(settings)
    rds_drift.repair()
    rds_parameters.repair()
    rds_restore.repair()
    rds_databases.repair(databases)
    rds_clusters.repair(settings)
    quotas.repair(settings)
    secretsmanager.repair()
    sts.repair()
    iam.repair()
    autoscaling.repair()
    cloudwatch.repair(settings, databases)
    concurrency.repair()

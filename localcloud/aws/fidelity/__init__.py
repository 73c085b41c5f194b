"""Where moto 5.2.5 answers otherwise than AWS, and is made to answer like it.

One file for each service, one function for each difference; the docstring of the function says what
AWS does, where that is written down, and what moto does instead. Nothing else in the product knows
that there is an emulator. Tests in `tests/localcloud/test_aws_*.py` fail without each.
"""

from __future__ import annotations

from localcloud.aws.databases import ClusterDatabases
from localcloud.aws.fidelity import (
    autoscaling,
    concurrency,
    iam,
    rds_clusters,
    rds_databases,
    rds_drift,
    rds_parameters,
    rds_passwords,
    rds_restore,
    secretsmanager,
)
from localcloud.aws.settings import EmulatorSettings


def mend(settings: EmulatorSettings, databases: ClusterDatabases) -> None:
    """Install everything, once in a process and before the first request.

    The order counts where two functions replace the same method: the later one runs first.
    """
    rds_passwords.mend(settings)
    rds_drift.mend()
    rds_parameters.mend()
    rds_restore.mend()
    rds_databases.mend(databases)
    rds_clusters.mend(settings)
    secretsmanager.mend()
    iam.mend()
    autoscaling.mend()
    concurrency.mend()

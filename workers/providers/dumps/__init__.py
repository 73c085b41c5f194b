"""`ports.Dumps`: `pg_dump` into an S3 bucket."""

from controlplane.workers.providers.dumps.pg_dump import PgDump
from controlplane.workers.providers.dumps.s3_dumps import S3Dumps

__all__ = ["PgDump", "S3Dumps"]

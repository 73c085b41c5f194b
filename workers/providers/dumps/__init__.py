"""`ports.Dumps`: `pg_dump` into an S3 bucket."""

from workers.providers.dumps.pg_dump import PgDump
from workers.providers.dumps.s3_dumps import S3Dumps

__all__ = ["PgDump", "S3Dumps"]

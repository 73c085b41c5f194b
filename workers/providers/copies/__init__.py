"""`ports.Copies` on AWS: dumps in a bucket, snapshots at RDS."""

from workers.providers.copies.aws_copies import AwsCopies
from workers.providers.copies.pg_dump import PgDump

__all__ = ["AwsCopies", "PgDump"]

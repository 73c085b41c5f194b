"""Carrying a tenant's rows to another database while they change."""

from controlplane.workers.providers.moves.postgres_moves import PostgresMoves

__all__ = ["PostgresMoves"]

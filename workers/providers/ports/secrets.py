"""Logins, and where they are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Credential:
    """A database login as kept in Secrets Manager, in the JSON shape of RDS's own secrets."""

    username: str
    password: str = field(repr=False)
    host: str = ""
    port: int = 5432
    dbname: str = ""


@dataclass(frozen=True, slots=True)
class SecretDescription:
    name: str
    arn: str
    version_id: str | None  # of AWSCURRENT; None while the container is empty
    deleting: bool


class Secrets(Protocol):
    def describe(self, name: str) -> SecretDescription | None:
        """The secret's container, by name or ARN; None where there is none."""
        ...

    def read(self, name: str) -> Credential:
        """The AWSCURRENT value. Raises Retryable while there is none yet."""
        ...

    def write(self, name: str, credential: Credential, *, token: str) -> str:
        """Make `credential` AWSCURRENT, return its version id. The same token twice writes once
        (`ClientRequestToken`, 32 to 64 characters). The container must exist: Terraform makes it."""
        ...

    def read_version(self, name: str, version_id: str) -> Credential | None:
        """The value of one version, whatever its label; None where there is none of this id."""
        ...

    def stage(self, name: str, credential: Credential, *, token: str) -> str:
        """Keep `credential` as AWSPENDING, which nobody uses yet; return its version id, which is the
        token. Raises Retryable where the token was taken for another value: read that one."""
        ...

    def promote(self, name: str, version_id: str, *, replacing: str) -> None:
        """Make this version AWSCURRENT if `replacing` is now: compared and moved in one step at AWS,
        so a writer who slept through its lease changes nothing. Raises Retryable where another is;
        promoted already is success."""
        ...

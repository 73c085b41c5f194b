"""An AWS account without AWS: what Terraform makes in it, and the three ports that look at it.

The account lives in the `World`, so what one process made the next one finds. `made` counts how often
each thing was created: more than once is a duplicate, and a thing that no Terraform state names is an
orphan, which is how tests check I2 and I5.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from controlplane.domain.errors import Invalid, NeedsHuman, NotFound, Retryable
from controlplane.domain.pool import Quota
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_identities import MOST_SECRETS
from controlplane.workers.providers.aws_secrets import parse_credential, render_credential
from controlplane.workers.providers.ports import (
    Activity,
    ClusterDescription,
    ClusterEndpoint,
    Credential,
    SecretDescription,
    StateObject,
    Tagged,
)

ACCOUNT = "123456789012"
REGION = "eu-central-1"
MADE = "aws-made"
ASLEEP = "cluster-asleep"
SESSION = "cluster-session"
_APP = re.compile(r":secret:placements/.*/app-.{6}$")


class FakeAccount:
    """Things by kind ("cluster", "instance", "secret", "role", …) and name; values are JSON."""

    def __init__(self, world: World) -> None:
        self.world = world

    def make(self, kind: str, name: str, **values: Any) -> dict[str, Any]:
        """Create it. Raises Retryable where it exists, as AWS's "already exists" does."""
        if self.get(kind, name) is not None:
            raise Retryable(f"{kind} {name} already exists")
        self.world.count(MADE, f"{kind}/{name}")
        return self.change(kind, name, **values)

    def change(self, kind: str, name: str, **values: Any) -> dict[str, Any]:
        thing: dict[str, Any] = (self.get(kind, name) or {}) | values
        self.world.put(f"aws-{kind}", name, thing)
        return thing

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.world.get(f"aws-{kind}", name)

    def names(self, kind: str) -> list[str]:
        return sorted(self.world.all(f"aws-{kind}"))

    def delete(self, kind: str, name: str) -> None:
        self.world.drop(f"aws-{kind}", name)

    def made(self, kind: str, name: str) -> int:
        """How often it was created."""
        return int(self.world.get(MADE, f"{kind}/{name}") or 0)

    def duplicates(self) -> list[str]:
        """What was created more than once; a test that deletes and makes anew must not ask."""
        return sorted(key for key, times in self.world.all(MADE).items() if times > 1)


def secret_arn(name: str) -> str:
    suffix = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-{suffix}"


def endpoint_of(cluster_id: str) -> ClusterEndpoint:
    """Where a fake cluster answers."""
    return ClusterEndpoint(
        host=f"{cluster_id}.cluster-fake.{REGION}.rds.amazonaws.com",
        port=5432,
        master_secret_arn=secret_arn(f"rds!{cluster_id}"),
        resource_id="cluster-" + cluster_id.removeprefix("c-").upper(),
    )


def encode(credential: Credential) -> str:
    """A value as the world keeps it: a search for a password through the world's file finds none."""
    return base64.b64encode(render_credential(credential).encode()).decode()


class FakeSecrets:
    """`ports.Secrets`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account = FakeAccount(world)

    def describe(self, name: str) -> SecretDescription | None:
        with self._world.call("secrets.describe"):
            found = self._find(name)
            if found is None:
                return None
            name, secret = found
            return SecretDescription(name, secret_arn(name), secret["current"], secret["deleting"])

    def read(self, name: str) -> Credential:
        with self._world.call("secrets.read"):
            name, secret = self._living(name)
            if secret["current"] is None:
                raise Retryable(f"secret {name} has no value yet")
            text = base64.b64decode(secret["versions"][secret["current"]]).decode()
            return parse_credential(text, name=name)

    def write(self, name: str, credential: Credential, *, token: str) -> str:
        _require_token(token)
        with self._world.call("secrets.write"):
            name, secret = self._living(name)
            value, versions = encode(credential), secret["versions"]
            if versions.get(token, value) != value:
                raise NeedsHuman(
                    f"secret {name} has a version {token} with another value", runbook="secret-conflict"
                )
            if token not in versions:
                self._account.change("secret", name, versions=versions | {token: value}, current=token)
            return token

    def read_version(self, name: str, version_id: str) -> Credential | None:
        with self._world.call("secrets.read_version"):
            found = self._find(name)
            if found is None:
                return None
            name, secret = self._living(name)
            value = secret["versions"].get(version_id)
            return None if value is None else parse_credential(base64.b64decode(value).decode(), name=name)

    def stage(self, name: str, credential: Credential, *, token: str) -> str:
        _require_token(token)
        with self._world.call("secrets.stage"):
            name, secret = self._living(name)
            if secret["current"] is None:
                raise Retryable(f"secret {name} has no value yet")
            value, versions = encode(credential), secret["versions"]
            if versions.get(token, value) != value:
                raise Retryable(f"version {token} of secret {name} was staged by somebody else")
            self._account.change("secret", name, versions=versions | {token: value})
            return token

    def promote(self, name: str, version_id: str, *, replacing: str) -> None:
        with self._world.call("secrets.promote"):
            name, secret = self._living(name)
            if secret["current"] == version_id:
                return
            if secret["current"] != replacing or version_id not in secret["versions"]:
                raise Retryable(f"secret {name}: {replacing} is not its current version")
            self._account.change("secret", name, current=version_id)

    def restore(self, name: str) -> None:
        with self._world.call("secrets.restore"):
            found = self._find(name)
            if found is None:
                raise NotFound(f"there is no secret {name}")
            self._account.change("secret", found[0], deleting=False)

    def _find(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """By name or ARN."""
        if name.startswith("arn:"):
            name = next((n for n in self._account.names("secret") if secret_arn(n) == name), name)
        secret = self._account.get("secret", name)
        return None if secret is None else (name, secret)

    def _living(self, name: str) -> tuple[str, dict[str, Any]]:
        found = self._find(name)
        if found is None:
            raise NotFound(f"there is no secret {name}")
        if found[1]["deleting"]:
            raise Retryable(f"secret {name} waits for its deletion")
        return found


def _require_token(token: str) -> None:
    if not 32 <= len(token) <= 64:
        raise Invalid("token", "32 to 64 characters", got=len(token))


LOGICAL_GROUP = "platform-logical"
"""The one parameter group of the account; clusters without it have Aurora's default."""
_WINDOW = ("earliest_restorable", "latest_restorable")


class FakeClusters:
    """`ports.Clusters`. `change_status` makes a cluster and its writer "creating", "stopped", …;
    `change_window` says when it can be restored to: to any time, unless said."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account = FakeAccount(world)

    def change_status(self, cluster_id: str, status: str) -> None:
        self._account.change("cluster", cluster_id, status=status)
        for name in self._account.names("instance"):
            if name.startswith(f"{cluster_id}-"):
                self._account.change("instance", name, status=status)

    def change_window(self, cluster_id: str, earliest: datetime, latest: datetime) -> None:
        window = zip(_WINDOW, (earliest.isoformat(), latest.isoformat()), strict=True)
        self._account.change("cluster", cluster_id, **dict(window))

    def describe(self, cluster_id: str) -> ClusterDescription | None:
        with self._world.call("clusters.describe"):
            cluster = self._account.get("cluster", cluster_id)
            if cluster is None:
                return None
            writer = self._account.get("instance", f"{cluster_id}-1")
            return ClusterDescription(
                status=cluster["status"],
                writer_status=None if writer is None else writer["status"],
                endpoint=endpoint_of(cluster_id),
                **{key: datetime.fromisoformat(cluster[key]) for key in _WINDOW if key in cluster},
            )

    def activity(self, cluster_id: str) -> Activity | None:
        with self._world.call("clusters.activity"):
            cluster, at = self._account.get("cluster", cluster_id), endpoint_of(cluster_id)
            if cluster is None or "min_acu" not in cluster:
                return None
            where = f"{at.host}:{at.port}"
            asleep = self._world.get(ASLEEP, where) is not None
            connected = len(self._world.all(f"{SESSION}-{where}"))
            return Activity(0.0 if asleep else max(0.5, cluster["min_acu"]), float(connected))


class FakeQuotas:
    """`ports.Quotas`. `set` gives the account quotas, by the names of `Quota`; of others it does not tell."""

    KINDS = {  # noqa: RUF012
        "clusters": "cluster",
        "instances": "instance",
        "subnet_groups": "subnet-group",
        "snapshots": "snapshot",
        "roles": "role",
        "secrets": "secret",
    }

    def __init__(self, world: World) -> None:
        self._world = world
        self._account = FakeAccount(world)

    def set(self, **most: int) -> None:
        self._world.put("aws-quota", "account", most)

    def left(self, *, max_age: float = 0.0) -> Quota:
        with self._world.call("quotas.left"):
            most = self._world.get("aws-quota", "account") or {}
            return Quota(
                **{name: quota - len(self._account.names(self.KINDS[name])) for name, quota in most.items()}
            )


class FakeIdentities:
    """`ports.Identities`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account = FakeAccount(world)

    def role_exists(self, name: str) -> bool:
        with self._world.call("identities.role_exists"):
            return self._account.get("role", name) is not None

    def readable(self, role: str, placement: str | None, secrets: Sequence[Tagged]) -> list[str]:
        """As the policy of `modules/cluster` says; one that was opened wide ("all") opens everything."""
        if not 1 <= len(secrets) <= MOST_SECRETS:
            raise Invalid("secrets", f"1 to {MOST_SECRETS}", got=len(secrets))
        with self._world.call("identities.readable"):
            if self._account.get("role", role) is None:
                raise NotFound(f"there is no role {role}")
            opens = (self._account.get("policy", role) or {}).get("opens")
            own = {"placement": placement, "cluster": role}
            return [
                secret.arn
                for secret in secrets
                if opens == "all"
                or (opens == "own" and _APP.search(secret.arn) and own.items() <= secret.tags.items())
            ]


class FakeInventory:
    """`ports.Inventory`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account = FakeAccount(world)

    def tagged(self) -> Iterator[Tagged]:
        with self._world.call("inventory.tagged"):
            for name in self._account.names("cluster"):
                yield Tagged(f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:{name}", {"cluster": name})
            for name in self._account.names("secret"):
                secret = self._account.get("secret", name) or {}
                tags = {str(key): secret[key] for key in ("placement", "cluster") if key in secret}
                if tags:
                    yield Tagged(secret_arn(name), tags)

    def states(self) -> Iterator[StateObject]:
        with self._world.call("inventory.states"):
            states, locks = self._world.all("terraform-state"), self._world.all("terraform-lock")
            for key in sorted({*states, *locks}):
                stack, workspace = key.split("/")
                yield StateObject(stack, workspace, present=key in states, locked=key in locks)

    def secrets(self) -> Iterator[tuple[str, bool]]:
        with self._world.call("inventory.secrets"):
            for name in self._account.names("secret"):
                secret = self._account.get("secret", name)
                if secret is not None and name.startswith("placements/"):
                    yield name, secret["deleting"]

    def roles(self) -> Iterator[str]:
        with self._world.call("inventory.roles"):
            yield from self._account.names("role")


def master_of(cluster_id: str) -> str:
    """The master's password of a fake cluster, the same in every process."""
    return hashlib.sha256(json.dumps(["master", cluster_id]).encode()).hexdigest()

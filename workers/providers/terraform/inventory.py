"""What exists at AWS under our names, and is ours: the ground for adoption.

A killed apply can leave resources that no state knows. Because every name is a function of an id, they
are found again by name; because every resource is tagged when it is made, a stranger's resource under
that name is recognised and left alone. The one nameless resource, the KMS key, is found through what
points at it: the cluster that it encrypts, else its alias, else its tags.

One class a stack; each knows the stack's addresses in Terraform and, for each, how to find it and the
id that an `import` block takes (the "Import" section of the resource's page in the AWS provider's
documentation).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, Protocol

from botocore.exceptions import ClientError

from controlplane.domain.errors import NeedsHuman, Pending
from workers.providers import aws

MANAGED_BY = "tenant-controlplane"
_IN_BETWEEN = frozenset({"creating", "deleting"})


class Inventory(Protocol):
    """The resources of one stack in one workspace."""

    def addresses(self) -> tuple[str, ...]:
        """Every address the stack has, in the order in which Terraform makes them."""
        ...

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        """Import ids of those that exist. `restore`: take what waits for its deletion out of it (else
        it counts as gone). Raises NeedsHuman("foreign-resource") where one is not ours, Pending while
        AWS is still making or deleting one."""
        ...


class AwsAccount:
    """Clients of one region, made when first used (a client costs up to 0.1 s)."""

    def __init__(self, region: str) -> None:
        self.client: Callable[[str], Any] = lru_cache(None)(lambda name: aws.client(name, region=region))


class TenantInventory:
    """`stacks/tenant`: two secrets, a role and its policy."""

    app_secret = "module.tenant.aws_secretsmanager_secret.app"  # noqa: S105
    migrator_secret = "module.tenant.aws_secretsmanager_secret.migrator"  # noqa: S105
    role = "module.tenant.aws_iam_role.this"
    policy = "module.tenant.aws_iam_role_policy.read_app_secret"
    POLICY_NAME = "read-app-secret"

    def __init__(self, account: AwsAccount, variables: Mapping[str, Any]) -> None:
        self._account = account
        self._variables = variables
        self._tags = {
            "managed_by": MANAGED_BY,
            "environment": variables["environment"],
            "tenant": variables["tenant_id"],
            "placement": variables["placement_key"],
        }

    def addresses(self) -> tuple[str, ...]:
        return (self.app_secret, self.migrator_secret, self.role, self.policy)

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        ways: dict[str, Callable[[], str | None]] = {
            self.app_secret: partial(self._secret, self._variables["app_secret_name"], restore),
            self.migrator_secret: partial(self._secret, self._variables["migrator_secret_name"], restore),
            self.role: self._role,
            self.policy: self._policy,
        }
        return _collect(ways, addresses)

    def _secret(self, name: str, restore: bool) -> str | None:
        """A secret within its deletion window keeps its name taken: it has to be restored, then adopted."""
        client = self._account.client("secretsmanager")
        seen = _maybe(f"describing secret {name}", lambda: client.describe_secret(SecretId=name))
        if seen is None:
            return None
        _require(f"secret {name}", _pairs(seen.get("Tags", [])), self._tags)
        if "DeletedDate" in seen:
            if not restore:
                return None
            with aws.errors(f"restoring secret {name}"):
                client.restore_secret(SecretId=name)
        return str(seen["ARN"])

    def _role(self) -> str | None:
        name = self._variables["placement_key"]
        seen = _maybe(
            f"describing role {name}", lambda: self._account.client("iam").get_role(RoleName=name)["Role"]
        )
        if seen is None:
            return None
        _require(f"role {name}", _pairs(seen.get("Tags", [])), self._tags)
        return str(name)

    def _policy(self) -> str | None:
        name = self._variables["placement_key"]
        seen = _maybe(
            f"reading the policy of role {name}",
            lambda: self._account.client("iam").get_role_policy(RoleName=name, PolicyName=self.POLICY_NAME),
        )
        return None if seen is None else f"{name}:{self.POLICY_NAME}"


class ClusterInventory:
    """`stacks/cluster`: key, alias, network, log group, the cluster and its instances."""

    key = "module.cluster.aws_kms_key.this"
    alias = "module.cluster.aws_kms_alias.this"
    security_group = "module.cluster.aws_security_group.this"
    subnet_group = "module.cluster.aws_db_subnet_group.this"
    log_group = "module.cluster.aws_cloudwatch_log_group.postgresql"
    cluster = "module.cluster.aws_rds_cluster.this"

    def __init__(self, account: AwsAccount, variables: Mapping[str, Any]) -> None:
        self._account = account
        self._variables = variables
        self._id: str = variables["cluster_id"]
        self._tags = {
            "managed_by": MANAGED_BY,
            "environment": variables["environment"],
            "cluster": self._id,
        }

    @property
    def foundation(self) -> tuple[str, ...]:
        """What is made within seconds and without what the cluster can't be."""
        return (self.key, self.alias, self.security_group, self.subnet_group, self.log_group)

    def instance(self, number: int) -> str:
        return f'module.cluster.aws_rds_cluster_instance.this["{number}"]'

    def addresses(self) -> tuple[str, ...]:
        count = int(self._variables["instance_count"])
        return (*self.foundation, self.cluster, *(self.instance(n) for n in range(1, count + 1)))

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        """Nothing here can be restored: a key that waits for its deletion is a person's decision."""
        ways: dict[str, Callable[[], str | None]] = {
            self.key: self._find_key,
            self.alias: lambda: self._alias_name if self._alias_target else None,
            self.security_group: self._find_security_group,
            self.subnet_group: self._find_subnet_group,
            self.log_group: self._find_log_group,
            self.cluster: lambda: self._id if self.described else None,
        }
        for number in range(1, int(self._variables["instance_count"]) + 1):
            ways[self.instance(number)] = partial(self._find_instance, number)
        return _collect(ways, addresses)

    @cached_property
    def described(self) -> dict[str, Any] | None:
        """The cluster as RDS describes it, ours and neither being made nor deleted."""
        seen = _maybe(
            f"describing cluster {self._id}",
            lambda: self._account.client("rds").describe_db_clusters(DBClusterIdentifier=self._id)[
                "DBClusters"
            ][0],
        )
        if seen is not None:
            _require(f"cluster {self._id}", _pairs(seen.get("TagList", [])), self._tags)
            _settled(f"cluster {self._id}", seen["Status"])
        return seen

    def tagged_keys(self) -> list[str]:
        """Ids of usable KMS keys that carry this cluster's tags."""
        with aws.errors(f"looking for the keys of cluster {self._id}"):
            pages = (
                self._account.client("resourcegroupstaggingapi")
                .get_paginator("get_resources")
                .paginate(
                    TagFilters=[{"Key": key, "Values": [value]} for key, value in self._tags.items()],
                    ResourceTypeFilters=["kms"],
                )
            )
            arns = [found["ResourceARN"] for page in pages for found in page["ResourceTagMappingList"]]
        ids = (arn.rsplit("/", 1)[-1] for arn in arns if ":key/" in arn)
        return [key for key in ids if self._key_state(key) == "Enabled"]

    def _find_key(self) -> str | None:
        if self.described is not None:
            key = str(self.described["KmsKeyId"]).rsplit("/", 1)[-1]
            if self._key_state(key) != "Enabled":
                raise NeedsHuman(f"the key {key} of cluster {self._id} is not enabled", runbook="kms-key")
            return key
        if self._alias_target and self._key_state(self._alias_target) == "Enabled":
            return self._alias_target
        return next(iter(self.tagged_keys()), None)

    @property
    def _alias_name(self) -> str:
        return f"alias/{self._id}"

    @cached_property
    def _alias_target(self) -> str | None:
        client = self._account.client("kms")
        seen = _maybe(
            f"describing {self._alias_name}",
            lambda: client.describe_key(KeyId=self._alias_name)["KeyMetadata"]["KeyId"],
        )
        if seen is not None:
            with aws.errors(f"reading the tags of key {seen}"):
                tags = client.list_resource_tags(KeyId=seen)["Tags"]
            _require(self._alias_name, _pairs(tags), self._tags)
        return seen

    def _key_state(self, key: str) -> str | None:
        state: str | None = _maybe(
            f"describing key {key}",
            lambda: self._account.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"],
        )
        return state

    def _find_security_group(self) -> str | None:
        with aws.errors(f"looking for security group {self._id}"):
            groups = self._account.client("ec2").describe_security_groups(
                Filters=[
                    {"Name": "group-name", "Values": [self._id]},
                    {"Name": "vpc-id", "Values": [self._variables["vpc_id"]]},
                ]
            )["SecurityGroups"]
        if not groups:
            return None
        _require(f"security group {self._id}", _pairs(groups[0].get("Tags", [])), self._tags)
        return str(groups[0]["GroupId"])

    def _find_subnet_group(self) -> str | None:
        client = self._account.client("rds")
        seen = _maybe(
            f"describing subnet group {self._id}",
            lambda: client.describe_db_subnet_groups(DBSubnetGroupName=self._id)["DBSubnetGroups"][0],
        )
        if seen is None:
            return None
        with aws.errors(f"reading the tags of subnet group {self._id}"):
            tags = client.list_tags_for_resource(ResourceName=seen["DBSubnetGroupArn"])["TagList"]
        _require(f"subnet group {self._id}", _pairs(tags), self._tags)
        return self._id

    def _find_log_group(self) -> str | None:
        """An untagged one is RDS's own, made while ours was not there yet: ours by its name."""
        client = self._account.client("logs")
        name = f"/aws/rds/cluster/{self._id}/postgresql"
        with aws.errors(f"describing log group {name}"):
            groups = client.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
            found = next((group for group in groups if group["logGroupName"] == name), None)
            if found is None:
                return None
            tags = client.list_tags_for_resource(resourceArn=found["arn"].removesuffix(":*"))["tags"]
        if tags:
            _require(f"log group {name}", tags, self._tags)
        return name

    def _find_instance(self, number: int) -> str | None:
        name = f"{self._id}-{number}"
        seen = _maybe(
            f"describing instance {name}",
            lambda: self._account.client("rds").describe_db_instances(DBInstanceIdentifier=name)[
                "DBInstances"
            ][0],
        )
        if seen is None:
            return None
        _require(f"instance {name}", _pairs(seen.get("TagList", [])), self._tags)
        _settled(f"instance {name}", seen["DBInstanceStatus"])
        return name


def inventory_of(stack: str, account: AwsAccount, variables: Mapping[str, Any]) -> Inventory:
    """Raises NeedsHuman for a stack that nobody described here: it could not be recovered."""
    kinds: dict[str, type[ClusterInventory] | type[TenantInventory]] = {
        "cluster": ClusterInventory,
        "tenant": TenantInventory,
    }
    if stack not in kinds:
        raise NeedsHuman(f"stack {stack!r} has no inventory", runbook="terraform-configuration")
    try:
        return kinds[stack](account, variables)
    except KeyError as error:
        raise NeedsHuman(
            f"stack {stack}: variable {error.args[0]} is missing", runbook="terraform-configuration"
        ) from error


def _collect(ways: Mapping[str, Callable[[], str | None]], addresses: Collection[str]) -> dict[str, str]:
    found = ((address, ways[address]()) for address in ways if address in addresses)
    return {address: import_id for address, import_id in found if import_id is not None}


_NOT_THERE = frozenset(
    {
        "DBClusterNotFoundFault",
        "DBInstanceNotFound",
        "DBInstanceNotFoundFault",
        "DBSubnetGroupNotFoundFault",
        "NoSuchEntity",
        "NotFoundException",
        "ResourceNotFoundException",
    }
)


def _maybe(action: str, call: Callable[[], Any]) -> Any | None:
    with aws.errors(action):
        try:
            return call()
        except ClientError as error:
            if aws.code(error) in _NOT_THERE:
                return None
            raise


def _pairs(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """IAM, RDS, EC2 and Secrets Manager say Key and Value, KMS says TagKey and TagValue."""
    return {tag.get("Key", tag.get("TagKey", "")): tag.get("Value", tag.get("TagValue", "")) for tag in tags}


def _require(what: str, tags: Mapping[str, str], expected: Mapping[str, str]) -> None:
    wrong = sorted(key for key, value in expected.items() if tags.get(key) != value)
    if wrong:
        raise NeedsHuman(
            f"{what} exists but is not ours: tag {', '.join(wrong)} differs", runbook="foreign-resource"
        )


def _settled(what: str, status: str) -> None:
    if status in _IN_BETWEEN:
        raise Pending(f"{what} is {status}", after=15)

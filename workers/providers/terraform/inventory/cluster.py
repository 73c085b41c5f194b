"""`stacks/cluster`: what exists of one Aurora cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from typing import Any

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers import aws
from controlplane.workers.providers.terraform.inventory.account import (
    MANAGED_BY,
    AwsAccount,
    maybe,
    pairs,
    reconciled,
    require,
)


class ClusterInventory:
    """`stacks/cluster`: key, alias, network, log group, the cluster, its instances and its role."""

    key = "module.cluster.aws_kms_key.this"
    alias = "module.cluster.aws_kms_alias.this"
    security_group = "module.cluster.aws_security_group.this"
    subnet_group = "module.cluster.aws_db_subnet_group.this[0]"
    log_group = "module.cluster.aws_cloudwatch_log_group.postgresql"
    cluster = "module.cluster.aws_rds_cluster.this"
    role = "module.cluster.aws_iam_role.this"
    policy = "module.cluster.aws_iam_role_policy.this"
    POLICY_NAME = "read-own-secret"

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
        shared = self._variables.get("db_subnet_group_name") is not None
        own = () if shared else (self.subnet_group,)
        return (self.key, self.alias, self.security_group, *own, self.log_group)

    def instance(self, number: int) -> str:
        return f'module.cluster.aws_rds_cluster_instance.this["{number}"]'

    def addresses(self) -> tuple[str, ...]:
        count = int(self._variables["instance_count"])
        instances = (self.instance(n) for n in range(1, count + 1))
        return (*self.foundation, self.cluster, *instances, self.role, self.policy)

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        """Nothing here can be restored: a key that waits for its deletion is a person's decision."""
        ways: dict[str, Callable[[], str | None]] = {
            self.key: self._find_key,
            self.alias: lambda: self._alias_name if self._alias_target else None,
            self.security_group: self._find_security_group,
            self.subnet_group: self._find_subnet_group,
            self.log_group: self._find_log_group,
            self.cluster: lambda: self._id if self.described else None,
            self.role: self._find_role,
            self.policy: self._find_policy,
        }
        for number in range(1, int(self._variables["instance_count"]) + 1):
            ways[self.instance(number)] = partial(self._find_instance, number)
        found = ((address, ways[address]()) for address in ways if address in addresses)
        return {address: import_id for address, import_id in found if import_id is not None}

    @cached_property
    def described(self) -> dict[str, Any] | None:
        """The cluster as RDS describes it, ours and neither being made nor deleted."""
        observed = maybe(
            f"describing cluster {self._id}",
            lambda: self._account.client("rds").describe_db_clusters(DBClusterIdentifier=self._id)[
                "DBClusters"
            ][0],
        )
        if observed is not None:
            require(f"cluster {self._id}", pairs(observed.get("TagList", [])), self._tags)
            reconciled(f"cluster {self._id}", observed["Status"])
        return observed

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
        observed = maybe(
            f"describing {self._alias_name}",
            lambda: client.describe_key(KeyId=self._alias_name)["KeyMetadata"]["KeyId"],
        )
        if observed is not None:
            with aws.errors(f"reading the tags of key {observed}"):
                tags = client.list_resource_tags(KeyId=observed)["Tags"]
            require(self._alias_name, pairs(tags), self._tags)
        return observed

    def _key_state(self, key: str) -> str | None:
        state: str | None = maybe(
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
        require(f"security group {self._id}", pairs(groups[0].get("Tags", [])), self._tags)
        return str(groups[0]["GroupId"])

    def _find_subnet_group(self) -> str | None:
        client = self._account.client("rds")
        observed = maybe(
            f"describing subnet group {self._id}",
            lambda: client.describe_db_subnet_groups(DBSubnetGroupName=self._id)["DBSubnetGroups"][0],
        )
        if observed is None:
            return None
        with aws.errors(f"reading the tags of subnet group {self._id}"):
            tags = client.list_tags_for_resource(ResourceName=observed["DBSubnetGroupArn"])["TagList"]
        require(f"subnet group {self._id}", pairs(tags), self._tags)
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
            require(f"log group {name}", tags, self._tags)
        return name

    def _find_instance(self, number: int) -> str | None:
        name = f"{self._id}-{number}"
        observed = maybe(
            f"describing instance {name}",
            lambda: self._account.client("rds").describe_db_instances(DBInstanceIdentifier=name)[
                "DBInstances"
            ][0],
        )
        if observed is None:
            return None
        require(f"instance {name}", pairs(observed.get("TagList", [])), self._tags)
        reconciled(f"instance {name}", observed["DBInstanceStatus"])
        return name

    def _find_role(self) -> str | None:
        observed = maybe(
            f"describing role {self._id}",
            lambda: self._account.client("iam").get_role(RoleName=self._id)["Role"],
        )
        if observed is None:
            return None
        require(f"role {self._id}", pairs(observed.get("Tags", [])), self._tags)
        return self._id

    def _find_policy(self) -> str | None:
        observed = maybe(
            f"reading the policy of role {self._id}",
            lambda: self._account.client("iam").get_role_policy(
                RoleName=self._id, PolicyName=self.POLICY_NAME
            ),
        )
        return None if observed is None else f"{self._id}:{self.POLICY_NAME}"

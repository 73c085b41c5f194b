"""Policies are read as IAM reads them, where requests are authorised at all
(`POST /moto-api/reset-auth` with the body `0` begins it, `Infinity` ends it)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, IAMRequestBase, PermissionResult
from moto.iam.responses import IamResponse

from controlplane.localcloud.aws.fidelity.patch import around, put


def repair() -> None:
    _wildcards()
    _permissions_boundary()
    _simulation()


def _wildcards() -> None:
    def match(pattern: str, string: str) -> re.Match[str] | None:
        """AWS: `*` stands for any characters, `?` for one, everything else for itself (IAM User
        Guide, "IAM JSON policy elements: Resource"); `…:secret:name-??????` is the form that the
        Secrets Manager guide recommends. moto: reads the pattern as a regular expression, in which
        that form is an error (500), and a `.` any character."""
        parts = ({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
        return re.fullmatch("".join(parts), string, re.DOTALL)

    put(IAMPolicyStatement, "_match", staticmethod(match))


def _permissions_boundary() -> None:
    @around(IAMRequestBase, "check_action_permitted")
    def within_the_boundary(check: Callable[..., None], self: Any, resource: str) -> None:
        """AWS: a role may do what both its policies and its permissions boundary allow (IAM User
        Guide, "Permissions boundaries for IAM entities"). moto: keeps the boundary and never reads
        it."""
        check(self, resource)
        role_name = getattr(self._access_key, "_owner_role_name", None)
        if role_name is None or self._action == "sts:GetCallerIdentity":
            return
        boundary = self.backend.get_role(role_name).permissions_boundary_arn
        if not boundary:
            return
        policy = IAMPolicy(self.backend.get_policy(boundary))
        if policy.is_action_permitted(self._action, resource) is not PermissionResult.PERMITTED:
            self._raise_access_denied()


def _simulation() -> None:
    def simulate_principal_policy(self: Any) -> ActionResult:
        """AWS: says what a role's policies and its boundary allow without doing it (API Reference,
        SimulatePrincipalPolicy). moto: knows no such action. Of this one roles alone are known, and
        neither conditions nor resource policies are simulated."""
        name = str(self._get_param("PolicySourceArn")).rsplit("/", 1)[-1]
        results = [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": _decision(self.backend, name, action, resource),
            }
            for action in self._get_param("ActionNames", [])
            for resource in self._get_param("ResourceArns", ["*"])
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    put(IamResponse, "simulate_principal_policy", simulate_principal_policy)


def _decision(backend: Any, role_name: str, action: str, resource: str) -> str:
    role = backend.get_role(role_name)
    inline = (backend.get_role_policy(role_name, name)[1] for name in backend.list_role_policies(role_name))
    attached, _ = backend.list_attached_role_policies(role_name)
    policies = [IAMPolicy(policy) for policy in (*inline, *attached)]
    said = {policy.is_action_permitted(action, resource) for policy in policies}
    if PermissionResult.DENIED in said:
        return "explicitDeny"
    if PermissionResult.PERMITTED not in said:
        return "implicitDeny"
    if role.permissions_boundary_arn:
        boundary = IAMPolicy(backend.get_policy(role.permissions_boundary_arn))
        if boundary.is_action_permitted(action, resource) is not PermissionResult.PERMITTED:
            return "implicitDeny"
    return "allowed"

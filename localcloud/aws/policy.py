"""What IAM policies say of a request: AWS's evaluation logic, and nothing of any emulator.

Pure. Sources: IAM User Guide, "Policy evaluation logic" with its page on requests within one account, "AWS
JSON policy elements: Principal" and "… Resource". The order: a deny anywhere decides; then the resource's
policy may grant by itself, to a session even beyond its limits; else identity policies must allow, and with
them the permissions boundary and the session policies, each of which only limits. A role's trust policy and
a key's policy must grant in any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from controlplane.localcloud.aws.policy_conditions import (
    Context,
    Text,
    Unresolved,
    Unsupported,
    holds,
    listed,
)

_EITHER_OR = ("Principal", "Action", "Resource")
_ELEMENTS = frozenset({"Sid", "Effect", "Condition", *_EITHER_OR, *(f"Not{name}" for name in _EITHER_OR)})


class Decision(StrEnum):
    """SimulatePrincipalPolicy's words."""

    ALLOWED = "allowed"
    EXPLICIT_DENY = "explicitDeny"
    IMPLICIT_DENY = "implicitDeny"


class Grant(IntEnum):
    """To whom a resource's policy grants what is asked for, the most exact that applies."""

    NOBODY = 0
    ACCOUNT = 1  # which hands the decision to its identity policies
    PRINCIPAL = 2  # the user, the role, or everybody
    SESSION = 3


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `arn`: the user's, or the session's; `role`: the ARN of the role whose session it is."""

    account: str
    arn: str
    role: str | None = None

    def named(self, name: str) -> Grant:
        """Whether an entry of `Principal` means it."""
        if name == "*":
            return Grant.PRINCIPAL
        if name == self.account or re.fullmatch(rf"arn:aws[a-z-]*:iam::{self.account}:root", name):
            return Grant.ACCOUNT
        if "*" in name:
            raise Unsupported(f"Principal {name!r}: a part of an ARN can't be a wildcard")
        if name == self.arn:
            return Grant.PRINCIPAL if self.role is None else Grant.SESSION
        return Grant.PRINCIPAL if name == self.role else Grant.NOBODY


@dataclass(frozen=True, slots=True)
class Request:
    """`action`: `service:Action`; `resource`: its ARN, or `*` where the action has none."""

    principal: Principal
    action: str
    resource: str
    context: Context = field(default_factory=dict)


class Policy:
    """A policy document. Raises Unsupported where it has an element that is not known here."""

    def __init__(self, document: str | Mapping[str, Any]) -> None:
        policy = json.loads(document) if isinstance(document, str) else document
        statements = policy.get("Statement", [])
        self._variables = policy.get("Version") == "2012-10-17"
        self._statements = [statements] if isinstance(statements, Mapping) else list(statements)
        for statement in self._statements:
            unknown = statement.keys() - _ELEMENTS
            if unknown:
                raise Unsupported(f"policy element {sorted(unknown)} is not known here")
            if statement.get("Effect") not in ("Allow", "Deny"):
                raise Unsupported(f"Effect: expected Allow or Deny, got {statement.get('Effect')!r}")
            for name in _EITHER_OR:
                if name in statement and f"Not{name}" in statement:
                    raise Unsupported(f"policy statement: expected {name} or Not{name}, got both")

    def denies(self, request: Request) -> bool:
        return any(self._applies(one, request) for one in self._statements if one["Effect"] == "Deny")

    def allows(self, request: Request) -> bool:
        return self.grants(request) > Grant.NOBODY

    def grants(self, request: Request) -> Grant:
        allowing = [one for one in self._statements if one["Effect"] == "Allow"]
        found = [_granted_to(one, request.principal) for one in allowing if self._applies(one, request)]
        return max(found, default=Grant.NOBODY)

    def _applies(self, statement: Mapping[str, Any], request: Request) -> bool:
        if not _of_principal(statement, request.principal) or not _of_action(statement, request.action):
            return False
        try:
            return self._of_resource(statement, request) and holds(
                statement.get("Condition", {}), request.context, variables=self._variables
            )
        except Unresolved as error:
            # "If AWS cannot resolve a variable this might cause the entire statement to be invalid": an
            # Allow is none then; whether a Deny still denies is not said, so no policy may rest on it.
            if statement["Effect"] == "Deny":
                raise Unsupported(f"{error}, and the statement denies: expected a default") from error
            return False

    def _of_resource(self, statement: Mapping[str, Any], request: Request) -> bool:
        if "NotResource" in statement:
            return not self._matches(statement["NotResource"], request)
        return "Resource" not in statement or self._matches(statement["Resource"], request)

    def _matches(self, patterns: Any, request: Request) -> bool:
        return any(
            Text(pattern, request.context, variables=self._variables).like(request.resource)
            for pattern in listed(patterns)
        )


def decide(
    request: Request,
    *,
    identity: Sequence[Policy],
    boundary: Policy | None = None,
    session: Sequence[Policy] = (),
    resource: Policy | None = None,
    resource_must_grant: bool = False,
) -> Decision:
    """`session`: the policies given at AssumeRole, of which one must allow where there are some.
    `resource_must_grant`: it is a role's trust policy, or a key's."""
    limits = [[boundary]] if boundary is not None else []
    limits += [list(session)] if session else []
    every = [*identity, *(policy for group in limits for policy in group)]
    if any(policy.denies(request) for policy in [*every, *([resource] if resource else [])]):
        return Decision.EXPLICIT_DENY
    granted = Grant.NOBODY if resource is None else resource.grants(request)
    if resource_must_grant and granted is Grant.NOBODY:
        return Decision.IMPLICIT_DENY
    a_user = request.principal.role is None
    if granted is Grant.SESSION or (granted is Grant.PRINCIPAL and a_user):
        return Decision.ALLOWED
    within = all(any(policy.allows(request) for policy in group) for group in limits)
    if within and (granted is Grant.PRINCIPAL or any(policy.allows(request) for policy in identity)):
        return Decision.ALLOWED
    return Decision.IMPLICIT_DENY


def _of_action(statement: Mapping[str, Any], action: str) -> bool:
    """Not case-sensitive, and without variables ("IAM JSON policy elements: Action")."""
    wanted = "Action" in statement
    patterns = listed(statement["Action" if wanted else "NotAction"])
    return wanted == any(Text(one.lower(), {}, variables=False).like(action.lower()) for one in patterns)


def _of_principal(statement: Mapping[str, Any], principal: Principal) -> bool:
    if "NotPrincipal" in statement:
        if statement["Effect"] != "Deny":
            raise Unsupported("NotPrincipal with Allow is not known here")
        # It exempts who is named in every capacity: account, role and session ("NotPrincipal").
        named = {one: principal.named(one) for one in _names(statement["NotPrincipal"])}
        needed = {Grant.ACCOUNT, Grant.PRINCIPAL} | ({Grant.SESSION} if principal.role else set())
        return "*" not in named and not needed <= set(named.values())
    return "Principal" not in statement or _granted_to(statement, principal) > Grant.NOBODY


def _granted_to(statement: Mapping[str, Any], principal: Principal) -> Grant:
    if "Principal" not in statement:
        return Grant.PRINCIPAL
    return max((principal.named(one) for one in _names(statement["Principal"])), default=Grant.NOBODY)


def _names(element: Any) -> list[str]:
    """A service or an identity provider is never who asks here."""
    if isinstance(element, str):
        return [element]
    unknown = element.keys() - {"AWS", "Service", "Federated"}
    if unknown:
        raise Unsupported(f"Principal: {sorted(unknown)} is not known here")
    return listed(element.get("AWS", []))

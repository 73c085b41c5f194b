"""Requests are authorised as IAM authorises them. The decision is `localcloud.aws.policy`'s; here is gathered
what it needs of moto: who asks, which policies apply, what the request says.

Whoever uses a key that the account has issued (a role's session, a user's key) is always held to its
policies. Any other key is the account's owner, who may do everything until `POST /moto-api/reset-auth` with
the body `0`; `Infinity` lets it in again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import has_request_context, request
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import AccessDeniedError, JsonRESTError
from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, IAMRequest, IAMRequestBase
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.iam.responses import IamResponse
from moto.kms.models import kms_backends
from moto.secretsmanager.models import SecretsManagerBackend, secretsmanager_backends
from moto.sts.models import sts_backends

from controlplane.localcloud.aws.fidelity.patch import around, put
from controlplane.localcloud.aws.fidelity.sts import listed, pairs, tags_of
from controlplane.localcloud.aws.policy import Decision, Policy, Principal, Request, decide
from controlplane.localcloud.aws.policy_conditions import Unsupported


def repair() -> None:
    _who_is_held()
    _what_is_permitted()
    _simulation()


def _who_is_held() -> None:
    @around(ActionAuthenticatorMixin, "_authenticate_and_authorize_action")
    def issued_keys_are_held(
        authorise: Callable[..., None], self: Any, kind: Callable[..., Any], resource: str = "*"
    ) -> None:
        """AWS: a session may do what its policies allow ("Temporary security credentials in IAM"). moto:
        authorises all requests or none, so in an account whose owner is let in a session may do
        everything."""
        _, _, scope = self.headers.get("Authorization", "").partition("Credential=")
        if scope.partition("/")[0] not in iam_backends[self.current_account][self.partition].access_keys:
            authorise(self, kind, resource)
            return
        query = self.parsed_url.query
        asked = kind(
            account_id=self.current_account,
            method=self.method,
            path=f"{self.raw_path}?{query}" if query else self.raw_path,
            data=self.data,
            body=self.raw_body,
            headers=self.headers,
            action=self._get_action(),
        )
        asked.check_signature()
        asked.check_action_permitted(resource)


def _what_is_permitted() -> None:
    def check_action_permitted(self: Any, resource: str) -> None:
        """AWS: see `policy.decide`; who passes tags to AssumeRole needs sts:TagSession besides, of its own
        policies and of the role's trust policy ("Pass session tags in AWS STS"); who reads a secret needs
        the key that it is encrypted with ("Secret encryption and decryption"). moto: knows no condition
        but sts:ExternalId's, takes one that is not met for a denial, and asks for no key."""
        if self._action == "sts:GetCallerIdentity":  # even where it is denied
            return
        asked = _Asked(self, resource)
        actions = [self._action]
        if self._action == "sts:AssumeRole" and tags_of(self._data):
            actions.append("sts:TagSession")
        try:
            if not all(asked.permitted(action) for action in actions):
                self._raise_access_denied()
            if not asked.opens_its_key():
                raise JsonRESTError("AccessDeniedException", "Access to KMS is not allowed")
        except Unsupported as error:
            raise _error(self, "UnsupportedByLocalcloud", str(error)) from error

    def raise_access_denied(self: Any) -> None:
        """AWS: services that speak JSON call it AccessDeniedException (API Reference, Common Errors).
        moto: answers them in XML as well, of which a client reads no code."""
        message = f"User: {self._access_key.arn} is not authorized to perform: {self._action}"
        raise _error(self, "AccessDeniedException", message)

    put(IAMRequestBase, "check_action_permitted", check_action_permitted)
    put(IAMRequest, "_raise_access_denied", raise_access_denied)


class _InXml(AccessDeniedError):
    def __init__(self, code: str, message: str) -> None:
        super(AccessDeniedError, self).__init__(code, message)


def _error(asked: Any, code: str, message: str) -> Exception:
    if "X-Amz-Target" in asked._headers:
        return JsonRESTError(code, message)
    return _InXml(code.removesuffix("Exception"), message)


class _Asked:
    """A request that moto has taken apart, in IAM's words."""

    def __init__(self, asked: Any, resource: str) -> None:
        self._asked = asked
        self._resource = resource
        self._account: str = asked.account_id
        self._key = asked._access_key
        self._role: Any = None
        self._session: Any = None
        if hasattr(self._key, "_owner_role_name"):
            self._role = asked.backend.get_role(self._key._owner_role_name)
            sessions = sts_backends[self._account][asked.backend.partition]
            self._session = sessions.get_assumed_role_from_access_key(self._key._access_key_id)
        self._principal = Principal(
            self._account, self._key.arn, None if self._role is None else self._role.arn
        )

    def permitted(self, action: str) -> bool:
        service = action.partition(":")[0]
        trust = service == "sts" and ":role/" in self._resource
        own = self._trust_policy() if trust else self._policy_of_secret()
        context = {**self._of_principal(), **self._of_request(), **self._of_resource()}
        return self._decide(action, self._resource, context, own, resource_must_grant=trust)

    def opens_its_key(self) -> bool:
        """Whether the session may use the key of the secret that it reads."""
        secret = self._secret()
        default = SecretsManagerBackend.DEFAULT_KMS_KEY_ALIAS
        reads = self._asked._action == "secretsmanager:GetSecretValue"
        if secret is None or not reads or secret.kms_key_id in (None, default):
            return True
        keys = kms_backends[self._account][secret.region]
        key = keys.keys[keys.any_id_to_key_id(secret.kms_key_id)]
        context = {
            **self._of_principal(),
            "kms:viaservice": [f"secretsmanager.{secret.region}.amazonaws.com"],
            "kms:encryptioncontext:secretarn": [secret.arn],
        }
        return self._decide("kms:Decrypt", key.arn, context, Policy(key.policy), resource_must_grant=True)

    def _decide(
        self,
        action: str,
        resource: str,
        context: Mapping[str, Sequence[str]],
        own: Policy | None,
        *,
        resource_must_grant: bool,
    ) -> bool:
        boundary = getattr(self._role, "permissions_boundary_arn", None)
        decision = decide(
            Request(self._principal, action, resource, context),
            identity=[_read(policy) for policy in self._key.collect_policies()],
            boundary=_read(self._asked.backend.get_policy(boundary)) if boundary else None,
            session=[Policy(text) for text in getattr(self._session, "policies", ())],
            resource=own,
            resource_must_grant=resource_must_grant,
        )
        return decision is Decision.ALLOWED

    def _trust_policy(self) -> Policy:
        """Of a role that is not there nobody is a principal."""
        try:
            role = self._asked.backend.get_role_by_arn(self._resource)
        except NotFoundException:
            return Policy({"Statement": []})
        return Policy(role.assume_role_policy_document)

    def _secret(self) -> Any:
        parts = self._resource.split(":")
        if parts[2:3] != ["secretsmanager"]:
            return None
        return secretsmanager_backends[self._account][parts[3]].secrets.get(self._resource)

    def _policy_of_secret(self) -> Policy | None:
        secret = self._secret()
        return None if secret is None or secret.policy is None else Policy(secret.policy)

    def _of_principal(self) -> dict[str, Sequence[str]]:
        context: dict[str, Sequence[str]] = {
            "aws:currenttime": [datetime.now(UTC).isoformat()],
            "aws:epochtime": [str(int(time.time()))],
            "aws:principalaccount": [self._account],
            "aws:requestedregion": [self._asked._region],
        }
        if has_request_context() and request.remote_addr:
            context["aws:sourceip"] = [request.remote_addr]
        if self._role is None:
            user = self._asked.backend.get_user(self._key._owner_user_name)
            context |= {"aws:principaltype": ["User"], "aws:username": [user.name], "aws:userid": [user.id]}
            return (
                context | {"aws:principalarn": [self._key.arn]} | _named("aws:PrincipalTag", pairs(user.tags))
            )
        # A tag of the session goes before the role's own of that name, however either is spelled.
        tags = _named("aws:PrincipalTag", pairs(self._role.tags))
        tags |= _named("aws:PrincipalTag", getattr(self._session, "tags", {}))
        context |= {"aws:principaltype": ["AssumedRole"], "aws:userid": [self._session.user_id]}
        return context | {"aws:principalarn": [self._role.arn]} | tags

    def _of_request(self) -> dict[str, Sequence[str]]:
        service = self._asked._service
        if service == "sts":
            query = self._asked._data
            tags, keys = tags_of(query), list(tags_of(query))
            context = {
                f"sts:{name}".lower(): query[name]
                for name in ("ExternalId", "RoleSessionName")
                if name in query
            }
            if transitive := listed(query, "TransitiveTagKeys"):
                context["sts:transitivetagkeys"] = transitive
        elif service == "secretsmanager":
            body = json.loads(self._asked._body or "{}")
            tags = pairs(body.get("Tags"))
            keys, context = [*tags, *body.get("TagKeys", [])], {}
        else:
            return {}
        return context | _named("aws:RequestTag", tags) | ({"aws:tagkeys": keys} if keys else {})

    def _of_resource(self) -> dict[str, Sequence[str]]:
        secret = self._secret()
        if secret is not None:
            tags = pairs(secret.tags)
            return _named("aws:ResourceTag", tags) | _named("secretsmanager:ResourceTag", tags)
        try:
            role = self._asked.backend.get_role_by_arn(self._resource)
        except NotFoundException:
            return {}
        tags = pairs(role.tags)
        return _named("aws:ResourceTag", tags) | _named("iam:ResourceTag", tags)


def _named(family: str, tags: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Tags as condition keys. Those that differ in case alone are one key of several values."""
    found: dict[str, Sequence[str]] = {}
    for key, value in tags.items():
        name = f"{family}/{key}".lower()
        found[name] = [*found.get(name, ()), value]
    return found


def _read(policy: Any) -> Policy:
    """Whatever moto keeps a policy as."""
    return Policy(IAMPolicy(policy)._policy_json)


def _simulation() -> None:
    def simulate_principal_policy(self: Any) -> ActionResult:
        """AWS: says what a role's policies and its boundary allow without doing it. What the request,
        the session and the resource would say must be given (API Reference, SimulatePrincipalPolicy,
        ContextEntries); a resource's tags are not looked up. moto: knows no such action. Of this one
        roles alone are known, and no resource policies."""
        arn = str(self._get_param("PolicySourceArn"))
        role = self.backend.get_role_by_arn(arn)
        inline = [self.backend.get_role_policy(role.name, name)[1] for name in role.policies]
        attached, _ = self.backend.list_attached_role_policies(role.name)
        boundary = role.permissions_boundary_arn
        context = {
            entry["ContextKeyName"].lower(): entry["ContextKeyValues"]
            for entry in self._get_param("ContextEntries", [])
        }
        results = []
        for action in self._get_param("ActionNames", []):
            for resource in self._get_param("ResourceArns", ["*"]):
                principal = Principal(self.current_account, arn, arn)
                decision = decide(
                    Request(principal, action, resource, {"aws:principalarn": [arn], **context}),
                    identity=[_read(policy) for policy in (*inline, *attached)],
                    boundary=_read(self.backend.get_policy(boundary)) if boundary else None,
                )
                results.append(
                    {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision.value}
                )
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    put(IamResponse, "simulate_principal_policy", simulate_principal_policy)

"""Steps of a tenant's logins: they are made, and rotated so that no request fails and no crash leaves one
that is refused.

The application has two logins, and its secret says which is in use. The other one gets a new password
that is kept in the secret first, as a version that nobody reads yet (AWSPENDING), then set on the
server, then proven to get in. Only then the version becomes the current one, in a step that fails where
another version is current by now. From there on both logins get in: data planes hear of it and move over
at their own pace, and after a grace period the login that was in use before is retired.

    stage ─▶ set password ─▶ prove ─▶ promote ─▶ notice ─▶ record ··· grace ···▶ retire

A worker that dies in between leaves a staged password behind, which its successor finds by the version's
id (`domain.rotation.version_id`) and goes on with. An invalidation that nobody heard costs a refused connect:
the data plane then asks for the login again. The migrator has one login, and only workers use it: it is
rotated in the same way without a second one, and who is refused in between is tried again.
"""

from __future__ import annotations

import hashlib
import logging

from controlplane.domain import rotation
from controlplane.domain.errors import Retryable
from controlplane.domain.status import Part
from controlplane.domain.steps import StepName
from controlplane.store import audit, placement
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import Credential
from controlplane.workers.steps.registry import tenant_step

log = logging.getLogger(__name__)


@tenant_step(
    StepName.ROTATE_CREDENTIAL,
    "the idle login gets a password: staged in the secret, set, proven, and then the one in use",
    again="the version's id follows from placement, login and generation; a staged one is gone on with",
    touches=(Part.SECRETS,),
)
def rotate_credential(work: TenantWork) -> None:
    login, placed, secrets = work.step.target, work.placement, work.ctx.providers.secrets
    name = placed.app_secret if login == "app" else placed.migrator_secret
    with work.ctx.registry.connection() as conn:
        generation = placement.login(conn, placed, login).generation + 1
    version = rotation.version_id(placed, login, generation)
    found = secrets.describe(name)
    if found is None or found.version_id is None:
        raise Retryable(f"the secret of {login} is empty")
    in_use = secrets.read(name)
    if found.version_id != version:
        staged = _staged(work, login, name, version, in_use)
        if login == "app" and staged.username == in_use.username:
            _skip(work, login, generation)
            return
        work.hold.check()
        work.ctx.providers.databases.set_password(work.at, staged)
        _prove(work, login, staged)
        work.hold.check()
        secrets.promote(name, version, replacing=found.version_id)
        in_use = staged
    if login == "app":
        work.ctx.providers.cache.notify_credential(placed.tenant_id)
    with work.recording() as conn:
        placement.rotated(
            conn,
            placed,
            login,
            generation=generation,
            username=in_use.username,
            version=version,
            retire_in=work.ctx.platform.rotation_grace if login == "app" else None,
        )
        audit.append(
            conn,
            actor=work.job.actor,
            action="credential.rotate",
            resource=placed.tenant_id,
            detail={"login": login, "generation": generation, "username": in_use.username},
        )


@tenant_step(
    StepName.RETIRE_LOGIN,
    "data planes are notified once more, and the login that was in use before loses its password and"
    " sessions",
    again="what is retired stays so",
    touches=(),
)
def retire_login(work: TenantWork) -> None:
    """The invalidation once more, a moment before the sessions end: who missed the first moves over now."""
    placed = work.placement
    in_use = work.ctx.providers.secrets.read(placed.app_secret)
    retired = rotation.idle_role(placed, in_use.username)
    work.ctx.providers.cache.notify_credential(placed.tenant_id)
    work.hold.check()
    work.ctx.providers.databases.retire_login(work.at, retired)
    with work.recording() as conn:
        placement.retired(conn, placed, "app")
        audit.append(
            conn,
            actor=work.job.actor,
            action="credential.retire",
            resource=placed.tenant_id,
            detail={"username": retired},
        )


def _staged(work: TenantWork, login: str, name: str, version: str, in_use: Credential) -> Credential:
    secrets, placed, at = work.ctx.providers.secrets, work.placement, work.at
    found = secrets.read_version(name, version)
    if found is not None:
        return found
    username = rotation.idle_role(placed, in_use.username) if login == "app" else placed.migrator_role
    staged = Credential(
        username=username,
        password=work.ctx.new_password(),
        host=at.host,
        port=at.port,
        dbname=placed.database,
    )
    secrets.stage(name, staged, token=version)
    return staged


def _prove(work: TenantWork, login: str, staged: Credential) -> None:
    if login == "app":
        work.ctx.providers.databases.prove(work.at, staged, work.placement)
    elif not work.ctx.providers.databases.accepts(work.at, staged):
        raise Retryable(f"{staged.username} is refused with the password that was just set")


def _skip(work: TenantWork, login: str, generation: int) -> None:
    """The secret was changed by hand after this generation was staged, to the very login that it is
    for: what was staged must not be set any more, so the next generation is the one."""
    with work.recording() as conn:
        placement.skip_generation(conn, work.placement, login, generation=generation)


@tenant_step(
    StepName.WRITE_CREDENTIAL,
    "a new password into Secrets Manager, for the migrator, then the app",
    again="the secret is the truth; only an empty one is filled",
    touches=(Part.SECRETS,),
)
def write_credential(work: TenantWork) -> None:
    """The secret first, the role's password from it afterwards: the secret is the truth, so a crash
    between the two is repaired by setting the password once more."""
    login = work.step.target
    with work.ctx.registry.connection() as conn:
        username = placement.login(conn, work.placement, login).username
    at = work.at
    work.ctx.providers.secrets.write(
        _secret(work, login),
        Credential(
            username=username,
            password=work.ctx.new_password(),
            host=at.host,
            port=at.port,
            dbname=work.placement.database,
        ),
        token=hashlib.sha256(f"{work.job.id}/{work.job.fencing_token}/{login}".encode()).hexdigest(),
    )


@tenant_step(
    StepName.SET_PASSWORD,
    "the role's password from the secret",
    again="setting it again changes nothing",
    touches=(),
)
def set_password(work: TenantWork) -> None:
    login = work.step.target
    found = work.ctx.providers.secrets.describe(_secret(work, login))
    if found is None or found.version_id is None:
        raise Retryable(f"the secret of {login} is empty")
    credential = work.ctx.providers.secrets.read(_secret(work, login))
    work.ctx.providers.databases.set_password(work.at, credential)
    with work.recording() as conn:
        placement.set_password_from(
            conn, work.placement, login, found.version_id, username=credential.username
        )


def distrust_password(work: TenantWork, login: str) -> None:
    """The server refuses what the secret holds: the next observation plans to set it again."""
    log.warning("%s: the %s login was refused, its password is set again", work.record.row.id, login)
    with work.recording() as conn:
        placement.set_password_from(conn, work.placement, login, None)


def _secret(work: TenantWork, login: str) -> str:
    return work.placement.app_secret if login == "app" else work.placement.migrator_secret

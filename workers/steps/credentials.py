"""Steps of a tenant's application logins: they are made, and rotated so that no request fails and no crash
leaves one that is refused.

The application has two logins, and its secret says which is in use. The other one gets a new password
that is kept in the secret first, as a version that nobody reads yet (AWSPENDING), then set on the
server, then proven to get in. Only then the version becomes the current one, in a step that fails where
another version is current by now. From there on both logins get in: data planes hear of it and move over
at their own pace, and after a grace period the login that was in use before is retired.

    stage ─▶ set password ─▶ prove ─▶ promote ─▶ notice ─▶ record ··· grace ···▶ retire

A worker that dies in between leaves a staged password behind, which its successor finds by the version's
id (`domain.rotation.version_id`) and goes on with. An invalidation that nobody heard costs a refused connect:
the data plane then asks for the login again. The migrator has no secret: who acts as it is let in for that
alone (`workers/providers/databases/sessions.py`).
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
    again="the version's id follows from placement and generation; a staged one is gone on with",
    touches=(Part.SECRET,),
)
def rotate_credential(work: TenantWork) -> None:
    placed, secrets = work.placement, work.ctx.providers.secrets
    name = placed.app_secret
    with work.ctx.registry.connection() as conn:
        generation = placement.login(conn, placed).generation + 1
    version = rotation.version_id(placed, generation)
    found = _filled(work)
    in_use = secrets.read(name)
    if found != version:
        staged = _staged(work, version, in_use)
        if staged.username == in_use.username:
            _skip(work, generation)
            return
        work.hold.check()
        work.ctx.providers.databases.set_password(work.at, staged)
        work.ctx.providers.databases.prove(work.at, staged, placed)
        work.hold.check()
        secrets.promote(name, version, replacing=found)
        in_use = staged
    work.ctx.providers.cache.notify_credential(placed.tenant_id)
    with work.recording() as conn:
        placement.rotated(
            conn,
            placed,
            generation=generation,
            username=in_use.username,
            version=version,
            retire_in=work.ctx.platform.rotation_grace,
        )
        audit.append(
            conn,
            actor=work.job.actor,
            action="credential.rotate",
            resource=placed.tenant_id,
            detail={"generation": generation, "username": in_use.username},
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
        placement.retired(conn, placed)
        audit.append(
            conn,
            actor=work.job.actor,
            action="credential.retire",
            resource=placed.tenant_id,
            detail={"username": retired},
        )


def _staged(work: TenantWork, version: str, in_use: Credential) -> Credential:
    secrets, placed, at = work.ctx.providers.secrets, work.placement, work.at
    found = secrets.read_version(placed.app_secret, version)
    if found is not None:
        return found
    staged = Credential(
        username=rotation.idle_role(placed, in_use.username),
        password=work.ctx.new_password(),
        host=at.host,
        port=at.port,
        dbname=placed.database,
    )
    secrets.stage(placed.app_secret, staged, token=version)
    return staged


def _skip(work: TenantWork, generation: int) -> None:
    """The secret was changed by hand after this generation was staged, to the very login that it is
    for: what was staged must not be set any more, so the next generation is the one."""
    with work.recording() as conn:
        placement.skip_generation(conn, work.placement, generation=generation)


@tenant_step(
    StepName.WRITE_CREDENTIAL,
    "a new password into Secrets Manager",
    again="the secret is the truth; only an empty one is filled",
    touches=(Part.SECRET,),
)
def write_credential(work: TenantWork) -> None:
    """The secret first, the role's password from it afterwards: the secret is the truth, so a crash
    between the two is repaired by setting the password once more."""
    with work.ctx.registry.connection() as conn:
        username = placement.login(conn, work.placement).username
    at = work.at
    work.ctx.providers.secrets.write(
        work.placement.app_secret,
        Credential(
            username=username,
            password=work.ctx.new_password(),
            host=at.host,
            port=at.port,
            dbname=work.placement.database,
        ),
        token=hashlib.sha256(f"{work.job.id}/{work.job.fencing_token}".encode()).hexdigest(),
    )


@tenant_step(
    StepName.SET_PASSWORD,
    "the role's password from the secret",
    again="setting it again changes nothing",
    touches=(),
)
def set_password(work: TenantWork) -> None:
    version = _filled(work)
    credential = work.ctx.providers.secrets.read(work.placement.app_secret)
    work.ctx.providers.databases.set_password(work.at, credential)
    with work.recording() as conn:
        placement.set_password_from(conn, work.placement, version, username=credential.username)


def distrust_password(work: TenantWork) -> None:
    """The server refuses what the secret holds: the next observation plans to set it again."""
    log.warning("%s: its login was refused, the password is set again", work.record.row.id)
    with work.recording() as conn:
        placement.set_password_from(conn, work.placement, None)


def _filled(work: TenantWork) -> str:
    """The version of the secret. Raises Retryable where that is empty."""
    found = work.ctx.providers.secrets.describe(work.placement.app_secret)
    if found is None or found.version_id is None:
        raise Retryable(f"the secret {work.placement.app_secret} is empty")
    return found.version_id

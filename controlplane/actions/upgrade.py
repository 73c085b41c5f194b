"""Bring a cluster to another release of the Terraform stacks.

The only way in which a changed module or lock file reaches a cluster that is there: a deploy, a restart, a
look or a `reprovision` runs what the row names (I13). One cluster after the other: while one upgrade is not
over, and so perhaps parked by what the release does wrong, no other begins. It is taken back by naming the
release before.
"""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfCluster, Parameters, Subject, register
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.errors import Conflict, Invalid
from controlplane.store import cluster, preview, stack, transfer
from controlplane.store.cluster import ClusterRow
from controlplane.store.registry import Connection

DIGITS = 12
"""Of a digest, that tell releases apart for people."""


class Upgrade(Parameters):
    release: str | None = Field(
        default=None,
        pattern=rf"^[0-9a-f]{{{DIGITS},64}}$",
        title=f"the first {DIGITS} or more digits of a release's digest",
        description=f"Its digest, or the first {DIGITS} digits of it. The installed one unless given.",
        json_schema_extra={"metavar": "DIGEST"},
    )


def perform(asked: OfCluster[Upgrade]) -> Begun:
    conn, row = asked.conn, cluster.get(asked.conn, asked.row.id, lock=True)
    release = _checked(conn, row, asked.params)
    cluster.upgrade(conn, row.id, release)
    return Begun({"from": row.release, "to": release}, asked.converge())


def in_advance(asked: OfCluster[Upgrade]) -> int:
    release = _checked(asked.conn, asked.row, asked.params)
    return preview.request_upgrade(asked.conn, asked.row.id, release, actor=asked.actor)


def _checked(conn: Connection, row: ClusterRow, params: Upgrade) -> str:
    """The digest in full. Raises Invalid for a release that was not published, Conflict."""
    if row.destroyed_at is not None or row.spec.lifecycle is ClusterLifecycle.CLOSED:
        raise Conflict(f"cluster {row.id} is closed: nothing is upgraded any more")
    if row.spec.origin is not None:
        raise Conflict(f"cluster {row.id} is made for one restore, and goes with it")
    if row.release is None:
        raise Conflict(f"cluster {row.id} names no release yet: its first apply takes the installed one")
    release = _published(conn, params.release)
    if release == row.release:
        raise Conflict(f"cluster {row.id} names release {release[:DIGITS]} already")
    carried = transfer.carried_over(conn, row.id)
    if carried is not None:
        raise Conflict(f"a transfer of {carried} runs on cluster {row.id}: upgrade it when that is over")
    other = cluster.upgraded_meanwhile(conn, other_than=row.id)
    if other is not None:
        raise Conflict(f"the upgrade of {other} is not over: one cluster at a time")
    return release


def _published(conn: Connection, asked: str | None) -> str:
    if asked is None:
        newest = stack.installed(conn)
        if newest is None:
            raise Conflict(
                "no worker has published its release yet: start one, or `controlplane stacks publish`"
            )
        return newest.digest
    found = stack.releases(conn, prefix=asked)
    if len(found) != 1:
        known = ", ".join(release.digest[:DIGITS] for release in stack.releases(conn)) or "none"
        raise Invalid("release", f"one that was published ({known})", got=asked)
    return found[0].digest


register(
    Action(
        name="upgrade",
        summary="Apply another release of the Terraform stacks to it and to the placements on it: modules,"
        " provider. No other command does.",
        params=Upgrade,
        perform=perform,
        preview=in_advance,
        subject=Subject.CLUSTER,
    )
)

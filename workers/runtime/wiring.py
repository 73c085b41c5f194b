"""The composition root of the workers: from settings to a `Context` with the real providers."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psycopg

from controlplane import migration_project
from controlplane.certificate import CertificateKey
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.job import Lane
from controlplane.settings import StackSettings, WorkerSettings
from controlplane.store import stack
from controlplane.store.registry import Registry
from controlplane.workers.engine.context import (
    Context,
    Notify,
    Platform,
)
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.providers.databases import new_password
from controlplane.workers.providers.databases.migrations import load
from controlplane.workers.providers.ports import Publication
from controlplane.workers.providers.real import TERRAFORM, providers, terraform
from controlplane.workers.providers.terraform import archive, lock_owner
from controlplane.workers.providers.webhook import Webhook

log = logging.getLogger(__name__)

REGISTRY_CONNECTIONS = 8
"""Of one process, opened as they are needed: a slot takes one or two, the heartbeat one."""


def context_from_environment(notify: Notify | None = None, lanes: Sequence[Lane] = tuple(Lane)) -> Context:
    """Raises SettingsError with a line for each mistake, CatalogueError likewise. Without `notify`
    nobody is notified: the polling worker finds by itself what is due."""
    return context(WorkerSettings.from_environment(), notify or _nobody, lanes)


def stack_release() -> str:
    """The digest of the stacks that this installation carries. Raises Refused where one is not whole."""
    return archive.pack(TERRAFORM).digest


def prepare_from_environment() -> None:
    """Publish the stacks of this installation, and initialise these and those that clusters name before the
    first customer needs one: seconds, or with the public registry the download of 700 MB. What goes wrong is
    only logged; the run that needs it tries again."""
    try:
        settings = StackSettings.from_environment()
        runner = terraform(settings)
        carried = runner.publish()
        with Registry(settings.registry_url, size=1) as registry, registry.connection() as conn:
            stack.record_release(conn, carried.digest, carried.variables, installed=True)
            named = stack.named_releases(conn)
    except (ControlPlaneError, psycopg.Error) as error:
        log.warning("the stacks could not be published: %s", error)
        return
    for release in dict.fromkeys([carried.digest, *named]):
        try:
            runner.prepare(release)
        except ControlPlaneError as error:
            log.warning("terraform could not be prepared: %s", error)


def publish_from_environment(*, dry_run: bool) -> Publication:
    """Put the stacks of this installation into the bucket and record that; rows go on naming what they name.
    `dry_run`: only look."""
    settings = StackSettings.from_environment()
    found = terraform(settings).publish(dry_run=dry_run)
    if not dry_run:
        with Registry(settings.registry_url, size=1) as registry, registry.connection() as conn:
            stack.record_release(conn, found.digest, found.variables)
    return found


def context(settings: WorkerSettings, notify: Notify, lanes: Sequence[Lane] = tuple(Lane)) -> Context:
    catalogue_file = settings.plan_catalogue
    registry = Registry(settings.registry_url, size=REGISTRY_CONNECTIONS)
    # drawn anew by each process: one that gets its predecessor's number must not renew its leases
    holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
    return Context(
        registry=registry,
        providers=providers(settings),
        catalogue=parse_catalogue(catalogue_file.read_text(), source=str(catalogue_file)),
        platform=Platform(
            environment=settings.environment,
            zone=settings.platform_zone,
            livemode=settings.stripe_livemode,
            stripe_account=settings.stripe_account,
            vpc_id=settings.vpc_id,
            subnet_ids=settings.subnet_ids,
            app_security_group_ids=settings.app_security_group_ids,
            app_role_arn=settings.app_role_arn,
            cluster_parameter_group=settings.cluster_parameter_group,
            subnet_group=settings.subnet_group,
            permissions_boundary_arn=settings.permissions_boundary_arn,
            lease=settings.lease_seconds,
            heartbeat=settings.heartbeat_seconds,
            duty_interval=settings.duty_interval,
            republish_interval=settings.republish_interval,
            compare_interval=settings.compare_interval,
        ),
        migrations=settings.tenant_migrations,
        release=_newest(settings.tenant_migrations),
        holder=holder,
        heartbeat=Heartbeat(
            registry,
            holder,
            seconds=settings.lease_seconds,
            every=settings.heartbeat_seconds,
            lanes=lanes,
            version=version("tenant-controlplane"),
        ),
        lock_owner=lock_owner(),
        notify=notify,
        new_password=new_password,
        certificate_key=None
        if settings.certificate_key is None
        else CertificateKey(*settings.certificate_key),
        webhook_sink=None
        if settings.notification_url is None
        else Webhook(settings.notification_url, settings.notification_secrets),
    )


def _newest(folder: Path) -> str | None:
    return None if migration_project.is_project(folder) else load(folder)[-1].number


def _nobody(lane: Lane) -> None:
    log.debug("no broker: what is due in lane %s is found by polling", lane)

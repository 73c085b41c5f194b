"""All that a pass needs, handed in: the registry, the providers, the catalogue.

There is one composition root (`workers/runtime/wiring.py`) that fills this from the settings; the tests fill
it with fakes. The engine reads no environment and builds no client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controlplane.certificate import CertificateKey
from controlplane.domain.catalogue import Catalogue
from controlplane.domain.job import Lane
from controlplane.store.registry import Registry
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.providers import ports

Notify = Callable[[Lane], None]
"""Say that the lane has work. A lost wake-up costs a second, so it never raises."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The operator's own surroundings, the same for every tenant.

    `zone`: tenants answer at `<slug>.<zone>`. Durations are in seconds. `rotation_grace`: how long a login
    that was rotated away still gets in, longer than any request and any connection's idle time.
    """

    environment: str
    zone: str
    livemode: bool
    vpc_id: str
    subnet_ids: tuple[str, ...]
    app_security_group_ids: tuple[str, ...]
    app_role_arn: str
    permissions_boundary_arn: str
    stripe_account: str | None = None
    secret_recovery_days: int = 7
    cluster_parameter_group: str | None = None
    subnet_group: str | None = None
    lease: float = 10.0
    heartbeat: float = 3.0
    observe_every: float = 3600.0
    hostname_poll: float = 15.0
    cluster_poll: float = 10.0
    rotation_grace: float = 900.0
    duty_interval: float = 5.0
    republish_interval: float = 300.0
    compare_interval: float = 900.0


@dataclass(frozen=True, slots=True)
class Context:
    """`migrations`: the folder of the tenant application's numbered SQL, `release` its newest number:
    they decide until the first release is registered, and the registry from then on. `release` is None
    where the folder is the project of another tool.
    `holder`: the name under which this process holds its jobs, which `heartbeat` keeps; `lock_owner`: the one
    that Terraform writes into its locks. `certificate_key`: signs deletion certificates; without it they are
    not signed. `webhook_sink`: where the notifications go."""

    registry: Registry
    providers: ports.Providers
    catalogue: Catalogue
    platform: Platform
    migrations: Path
    release: str | None
    holder: str
    lock_owner: str
    notify: Notify
    heartbeat: Heartbeat
    new_password: Callable[[], str]
    certificate_key: CertificateKey | None = None
    webhook_sink: ports.WebhookSink | None = None

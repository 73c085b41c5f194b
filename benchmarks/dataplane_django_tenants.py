"""What django-tenants' middleware costs a request: run as a child process, prints seconds as JSON.

    python -m benchmarks.dataplane_django_tenants <postgresql url> <tenants> <rounds>

The database holds that many tenants and domains; each round looks up a random one. As in production
the connection is open already (CONN_MAX_AGE). Schemas are not made: the middleware does not need them.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import django
from django.apps import AppConfig
from django.conf import settings


class BenchConfig(AppConfig):
    name = "benchmarks.dataplane_django_tenants"
    label = "bench"
    default_auto_field = "django.db.models.BigAutoField"

    def import_models(self) -> None:
        from django_tenants.models import DomainMixin, TenantMixin

        class Tenant(TenantMixin):
            auto_create_schema = False

            class Meta:
                app_label = "bench"

        class Domain(DomainMixin):
            class Meta:
                app_label = "bench"

        self.models: dict[str, Any] = self.apps.all_models[self.label]


def configure(url: str) -> None:
    parts = urlsplit(url)
    apps = [
        "django.contrib.contenttypes",
        "django_tenants",
        "benchmarks.dataplane_django_tenants.BenchConfig",
    ]
    settings.configure(
        INSTALLED_APPS=apps,
        SHARED_APPS=apps,
        TENANT_APPS=["django.contrib.contenttypes"],
        TENANT_MODEL="bench.Tenant",
        TENANT_DOMAIN_MODEL="bench.Domain",
        DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmarks.dataplane_django_tenants",
        USE_TZ=True,
        SECRET_KEY="benchmark",
        DATABASES={
            "default": {
                "ENGINE": "django_tenants.postgresql_backend",
                "NAME": parts.path.lstrip("/"),
                "USER": parts.username,
                "PASSWORD": parts.password or "",
                "HOST": parts.hostname,
                "PORT": parts.port,
                "CONN_MAX_AGE": None,
            }
        },
    )
    django.setup()


urlpatterns: list[Any] = []


def main(url: str, tenants: int, rounds: int) -> None:
    configure(url)
    from django.db import connection
    from django.test import RequestFactory
    from django_tenants.middleware.main import TenantMainMiddleware
    from django_tenants.utils import get_tenant_domain_model, get_tenant_model

    tenant_model, domain_model = get_tenant_model(), get_tenant_domain_model()
    with connection.schema_editor() as editor:
        editor.create_model(tenant_model)
        editor.create_model(domain_model)
    made = tenant_model.objects.bulk_create(
        [tenant_model(schema_name=f"tenant_{number}") for number in range(tenants)]
    )
    domain_model.objects.bulk_create(
        [
            domain_model(domain=f"tenant-{number}.tenants.example.com", tenant=tenant, is_primary=True)
            for number, tenant in enumerate(made)
        ]
    )
    middleware = TenantMainMiddleware(lambda _: None)
    factory = RequestFactory()
    draw = random.Random(1)
    requests = [
        factory.get("/", headers={"Host": f"tenant-{draw.randrange(tenants)}.tenants.example.com"})
        for _ in range(200)
    ]
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for request in requests:
            middleware.process_request(request)
        best = min(best, (time.perf_counter() - began) / len(requests))
    assert requests[-1].tenant.schema_name.startswith("tenant_")
    print(json.dumps({"seconds": best}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Prints seconds as JSON: `python -m benchmarks.django_peer <postgresql url> <tenants>`.

The three migrations of the benchmark as a Django app, applied with `migrate_schemas` by each of its
executors to schemas that are made beforehand. What is compared is the loop, not the isolation: schemas
of one database need no connection each.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from urllib.parse import urlsplit

import django
from django.conf import settings

SHARED = ["django.contrib.contenttypes", "django_tenants", "benchmarks.django_peer.shared"]


def configure(url: str) -> None:
    parts = urlsplit(url)
    settings.configure(
        INSTALLED_APPS=[*SHARED, "benchmarks.django_peer.notes"],
        SHARED_APPS=SHARED,
        TENANT_APPS=["benchmarks.django_peer.notes"],
        TENANT_MODEL="shared.Tenant",
        TENANT_DOMAIN_MODEL="shared.Domain",
        TENANT_MULTIPROCESSING_MAX_PROCESSES=8,
        DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django_tenants.postgresql_backend",
                "NAME": parts.path[1:],
                "USER": parts.username,
                "PASSWORD": parts.password or "",
                "HOST": parts.hostname,
                "PORT": parts.port,
            }
        },
    )
    django.setup()


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    configure(url)
    from django.core.management import call_command
    from django.db import connection

    from benchmarks.django_peer.shared.models import Tenant

    call_command("migrate_schemas", shared=True, verbosity=0)
    seconds = {}
    for executor in ("standard", "multiprocessing"):
        Tenant.objects.all().delete()
        Tenant.objects.bulk_create(Tenant(schema_name=f"{executor[:1]}{number}") for number in range(count))
        with connection.cursor() as cursor:
            for number in range(count):
                cursor.execute(f"CREATE SCHEMA {executor[:1]}{number}")
        began = time.perf_counter()
        call_command("migrate_schemas", tenant=True, executor=executor, verbosity=0)
        seconds[executor] = time.perf_counter() - began
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {executor[:1]}{count - 1}.notes_note")
            assert cursor.fetchone() == (10,)
    print(json.dumps(seconds))


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()

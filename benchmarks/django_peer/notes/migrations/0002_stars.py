from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar[list[Any]] = [("notes", "0001_notes")]
    operations: ClassVar[list[Any]] = [migrations.AddField("note", "stars", models.IntegerField(default=0))]

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar[list[Any]] = [("notes", "0002_stars")]
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            "Tag",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("note", models.ForeignKey("notes.Note", models.CASCADE)),
                ("tag", models.TextField()),
            ],
        ),
        migrations.RunSQL(
            "INSERT INTO notes_note (body, stars) SELECT 'note ' || n, 0 FROM generate_series(1, 10) AS n"
        ),
    ]

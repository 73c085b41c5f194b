from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("notes", "0001_notes"),)
    operations = (migrations.AddField("note", "stars", models.IntegerField(default=0, db_default=0)),)

from django.db import models


class Note(models.Model):
    body = models.TextField()
    stars = models.IntegerField(default=0, db_default=0)

    class Meta:
        db_table = "note"

"""What the admin names and permissions are about. There are no tables behind it."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from django.db import models

#: Characters that would hide, or break a line, where a name is shown.
_unseen = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
#: What is escaped in a key: PostgreSQL keeps no NUL in a text.
_escaped = re.compile("[%\0-\x1f\x7f]")


class NoRows(models.Manager["models.Model"]):
    """Never ask the database, so that dumpdata finds nothing and no error."""

    def get_queryset(self) -> models.QuerySet[models.Model]:
        return super().get_queryset().none()


class Group(models.Model):
    """A group of one channel layer: ``<alias>/<name>``.

    Percent-encoded are of the alias whatever an address would encode, of the name
    control characters and "%": the key also stands in the admin's log.
    """

    key: models.TextField[str, str] = models.TextField(primary_key=True)

    objects = NoRows()

    class Meta:
        managed = False
        base_manager_name = "objects"
        verbose_name = "connection group"
        default_permissions = ("view",)
        permissions = [
            ("close_group", "Can close a connection group"),
            ("close_connection", "Can close a connection"),
            ("send_message", "Can send a message to connections"),
        ]

    def __str__(self) -> str:
        return visible(self.name)

    @classmethod
    def of(cls, alias: str, name: str) -> Group:
        """Return the group of that name in the layer of that alias."""
        name = _escaped.sub(lambda found: f"%{ord(found[0]):02X}", name)
        return cls(key=f"{quote(alias, safe='')}/{name}")

    @property
    def alias(self) -> str:
        return unquote(self.key.partition("/")[0])

    @property
    def name(self) -> str:
        return unquote(self.key.partition("/")[2])


class Process(models.Model):
    """A process with connections, or what is left of it."""

    key: models.TextField[str, str] = models.TextField(primary_key=True)

    objects = NoRows()

    class Meta:
        managed = False
        base_manager_name = "objects"
        verbose_name_plural = "processes"
        default_permissions = ("view",)


def visible(text: str) -> str:
    """Return the text, as Python would write it where one could not see it."""
    return repr(text) if _unseen.search(text) or not text.strip() else text

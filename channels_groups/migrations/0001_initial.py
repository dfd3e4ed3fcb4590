"""The models of the admin, which have permissions but no tables."""

from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    operations = [
        migrations.CreateModel(
            name="Group",
            fields=[("key", models.TextField(primary_key=True, serialize=False))],
            options={
                "verbose_name": "connection group",
                "permissions": [
                    ("close_group", "Can close a connection group"),
                    ("close_connection", "Can close a connection"),
                    ("send_message", "Can send a message to connections"),
                ],
                "managed": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="Process",
            fields=[("key", models.TextField(primary_key=True, serialize=False))],
            options={
                "verbose_name_plural": "processes",
                "managed": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
            },
        ),
    ]
